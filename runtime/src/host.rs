//! What all workers of an HVM share: settings, compilers, the pools' places, the partitions as they can be seen.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, Weak};
use std::time::Duration;

use hvm_types::{DeploymentName, GroupName, Meter, Metering, ReplicaId};
use rustc_hash::FxHashMap;
use tokio::sync::Semaphore;

use crate::changes::ChangeList;
use crate::core_dump::MAX_DUMPING;
use crate::guest::Disposal;
use crate::histogram::{DurationHistogram, Durations};
use crate::memory::HostMemory;
use crate::module::Compilers;
use crate::observed::{Arriving, Observed};
use crate::places::Places;
use crate::state::StateEngine;
use crate::worker::{WorkerHandle, process_cpu};
use crate::{
    CoreDumpError, CoreDumpWait, HostObservation, HvmConfig, PartitionUsage, PoolObservation, RequestError,
    UsedSince,
};

/// What all workers share.
pub(crate) struct Host {
    pub(crate) config: HvmConfig,
    pub(crate) compilers: Compilers,
    pub(crate) state: Arc<dyn StateEngine>,
    pub(crate) memory: Arc<HostMemory>,
    pub(crate) disposal: Disposal,
    pub(crate) workers: OnceLock<Vec<WorkerHandle>>,
    pub(crate) changes: Arc<ChangeList>,
    /// One pool for each way of metering.
    places: [Places; Metering::ALL.len()],
    pub(crate) preparations: DurationHistogram,
    fenced_commits: AtomicU64,
    /// Places for core dumps that are being made.
    dumping: Arc<Semaphore>,
    registry: Mutex<Registry>,
    /// The same partitions, to find one in passing.
    open: RwLock<FxHashMap<ReplicaId, Arc<Observed>>>,
}

/// The partitions as they can be seen, and what those used that are gone.
#[derive(Default)]
struct Registry {
    partitions: BTreeMap<ReplicaId, Arc<Observed>>,
    closed: Meter,
    /// Processor time of closed partitions since the start: their meters may hold more, from before.
    closed_cpu: Duration,
    /// What partitions used that were closed since the last drain, by id.
    closed_undrained: BTreeMap<ReplicaId, PartitionUsage>,
    drained: Drained,
    /// How long requests took, by group. An entry goes with the last copy of its group.
    latencies: BTreeMap<(DeploymentName, GroupName), Weak<DurationHistogram>>,
}

/// Processor time that was given out by [`Host::drain_usage`], since the process began.
#[derive(Default)]
struct Drained {
    partitions: Duration,
    host: Duration,
}

/// Closed partitions of which it is remembered what they used until somebody asks; what further ones used since
/// they were last asked for counts as the host's own.
const MAX_CLOSED_UNDRAINED: usize = 100_000;

impl Host {
    pub(crate) fn new(
        config: HvmConfig,
        compilers: Compilers,
        places: [Places; Metering::ALL.len()],
        state: Arc<dyn StateEngine>,
    ) -> Self {
        Self {
            memory: HostMemory::new(config.memory),
            disposal: Disposal::default(),
            places,
            preparations: DurationHistogram::default(),
            fenced_commits: AtomicU64::new(0),
            dumping: Arc::new(Semaphore::new(MAX_DUMPING)),
            workers: OnceLock::new(),
            changes: Arc::default(),
            registry: Mutex::default(),
            open: RwLock::default(),
            compilers,
            config,
            state,
        }
    }

    pub(crate) fn workers(&self) -> &[WorkerHandle] {
        self.workers.get().map_or(&[], Vec::as_slice)
    }

    /// The worker that a partition is pinned to: the copies of a group go round the workers.
    pub(crate) fn worker_of(&self, id: &ReplicaId) -> usize {
        // FNV-1a: the same on every host and in every build.
        let add = |hash: u64, text: &str| {
            let bytes = text.bytes();
            bytes.fold(hash, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
        };
        let parts = [id.deployment.as_str(), "/", id.group.as_str()];
        let hash: u64 = parts.into_iter().fold(0xcbf2_9ce4_8422_2325, add);
        let place = (hash ^ (hash >> 32)).wrapping_add(u64::from(id.index));
        let count = self.config.workers.get() as u64;
        usize::try_from(place % count).expect("smaller than the number of workers")
    }

    /// The places of the pool for one way of metering.
    pub(crate) const fn places(&self, metering: Metering) -> &Places {
        let [time, deterministic] = &self.places;
        match metering {
            Metering::Time => time,
            Metering::Deterministic => deterministic,
        }
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where requests of this partition's group count how long they took.
    pub(crate) fn latency_of(&self, id: &ReplicaId) -> Arc<DurationHistogram> {
        let mut registry = self.registry();
        let latency = registry.latencies.entry((id.deployment.clone(), id.group.clone())).or_default();
        latency.upgrade().unwrap_or_else(|| {
            let new = Arc::default();
            *latency = Arc::downgrade(&new);
            new
        })
    }

    /// How long requests took, by group.
    pub(crate) fn latencies(&self) -> Vec<(DeploymentName, GroupName, Durations)> {
        let mut registry = self.registry();
        registry.latencies.retain(|_, latency| latency.strong_count() > 0);
        let latencies = registry.latencies.iter();
        let read = |latency: &Weak<DurationHistogram>| latency.upgrade().map(|latency| latency.read());
        latencies
            .filter_map(|((deployment, group), latency)| {
                Some((deployment.clone(), group.clone(), read(latency)?))
            })
            .collect()
    }

    /// What all partitions share, as it is now.
    pub(crate) fn observe_shared(&self) -> HostObservation {
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let pool = |metering| {
            let places = self.places(metering);
            let (free, waiting) = (count(places.free()), count(places.waiting()));
            PoolObservation { metering, places: places.total(), free, waiting }
        };
        HostObservation {
            pools: Metering::ALL.map(pool).to_vec(),
            queues: self.workers().iter().map(|worker| count(worker.queued())).collect(),
            memory: self.memory.used(),
            memory_limit: self.config.memory,
            preparations: self.preparations.read(),
            compile_children: self.compilers.children(),
            fenced_commits: self.fenced_commits.load(Ordering::Relaxed),
        }
    }

    /// A commit was refused because another host owns the partition.
    pub(crate) fn count_fenced_commit(&self) {
        self.fenced_commits.fetch_add(1, Ordering::Relaxed);
    }

    /// Lets a request set out for a partition's worker, unless it would be refused there.
    pub(crate) fn set_out(&self, id: &ReplicaId) -> Result<Option<Arriving>, RequestError> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        open.get(id).cloned().map(Arriving::set_out).transpose()
    }

    pub(crate) fn register(&self, observed: &Arc<Observed>) {
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        open.insert(observed.id.clone(), Arc::clone(observed));
        drop(open);
        self.registry().partitions.insert(observed.id.clone(), Arc::clone(observed));
    }

    pub(crate) fn unregister(&self, observed: &Observed) {
        self.open.write().unwrap_or_else(PoisonError::into_inner).remove(&observed.id);
        let mut registry = self.registry();
        let removed = registry.partitions.remove(&observed.id);
        // Who found it there before has asked already.
        observed.dumps.close();
        if removed.is_some() {
            let room = registry.closed_undrained.len() < MAX_CLOSED_UNDRAINED;
            if let Some(used) = observed.take_used().filter(|_| room) {
                add_used(&mut registry.closed_undrained, used);
            }
            let meter = observed.read_meter();
            registry.closed_cpu += observed.cpu_since_start(&meter);
            registry.closed += &meter;
        }
    }

    /// Asks for the core dump of the next guest of this partition that is stopped.
    pub(crate) fn core_dump(
        &self,
        id: &ReplicaId,
        after: Option<Duration>,
    ) -> Result<CoreDumpWait, CoreDumpError> {
        let registry = self.registry();
        let observed =
            registry.partitions.get(id).ok_or_else(|| CoreDumpError::Unknown { id: id.clone() })?;
        observed.dumps.ask(id, after, &self.dumping)
    }

    /// All partitions, sorted by id.
    pub(crate) fn observe(&self) -> Vec<Arc<Observed>> {
        self.registry().partitions.values().cloned().collect()
    }

    /// Processor time of this process, and of those that compiled for it.
    pub(crate) fn cpu(&self) -> Duration {
        process_cpu() + self.compilers.children().cpu
    }

    /// What was used since the last call.
    pub(crate) fn drain_usage(&self) -> UsedSince {
        let observed = self.observe();
        let mut used = std::mem::take(&mut self.registry().closed_undrained);
        for partition in observed.iter().filter_map(|observed| observed.take_used()) {
            add_used(&mut used, partition);
        }
        let in_partitions: Duration = used.values().map(|used| used.meter.cpu).sum();
        let mut registry = self.registry();
        let drained = &mut registry.drained;
        let before = drained.partitions + drained.host;
        drained.partitions += in_partitions;
        // What a worker charged after it was asked to settle may be of a moment that is still to come for this
        // clock: then the host's share stands still.
        let host = self.cpu().saturating_sub(drained.partitions).max(drained.host);
        let host_cpu = host - std::mem::replace(&mut drained.host, host);
        UsedSince {
            partitions: used.into_values().collect(),
            host_cpu,
            process_cpu: drained.partitions + drained.host - before,
        }
    }

    /// What closed partitions used: in all, and of processor time since the start.
    pub(crate) fn closed(&self) -> (Meter, Duration) {
        let registry = self.registry();
        (registry.closed.clone(), registry.closed_cpu)
    }
}

fn add_used(all: &mut BTreeMap<ReplicaId, PartitionUsage>, used: PartitionUsage) {
    match all.entry(used.id.clone()) {
        Entry::Vacant(place) => {
            place.insert(used);
        }
        Entry::Occupied(place) => {
            let sum = place.into_mut();
            sum.meter += &used.meter;
            sum.stored = used.stored;
        }
    }
}
