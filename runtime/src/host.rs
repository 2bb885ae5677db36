//! What all workers of an HVM share: settings, engine, the pool's places, the partitions as they can be seen.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use hvm_types::{Meter, ReplicaId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};
use wasmtime::Engine;

use crate::changes::ChangeList;
use crate::memory::HostMemory;
use crate::module::Compiler;
use crate::observed::Observed;
use crate::state::StateEngine;
use crate::worker::{Local, WorkerHandle};
use crate::{HvmConfig, RequestError};

/// How long a request waits for a place before it asks again for idle instances to go.
const ASK_AGAIN: Duration = Duration::from_millis(20);

/// What all workers share.
pub(crate) struct Host {
    pub(crate) config: HvmConfig,
    pub(crate) engine: Engine,
    pub(crate) compiler: Arc<Compiler>,
    pub(crate) state: Arc<dyn StateEngine>,
    pub(crate) memory: Arc<HostMemory>,
    pub(crate) workers: OnceLock<Vec<WorkerHandle>>,
    pub(crate) changes: Arc<ChangeList>,
    slots: Arc<Semaphore>,
    /// Requests that wait for a slot; while there are any, no instance stays idle.
    waiting_for_slots: AtomicUsize,
    registry: Mutex<Registry>,
}

/// The partitions as they can be seen, and what those used that are gone.
#[derive(Default)]
struct Registry {
    partitions: BTreeMap<ReplicaId, Arc<Observed>>,
    closed: Meter,
    /// Processor time of closed partitions since the start: their meters may hold more, from before.
    closed_cpu: Duration,
}

/// Counts a request that waits for a slot.
struct WaitsForSlot<'a>(&'a AtomicUsize);

impl Drop for WaitsForSlot<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Host {
    pub(crate) fn new(
        config: HvmConfig,
        engine: Engine,
        compiler: Compiler,
        state: Arc<dyn StateEngine>,
    ) -> Self {
        Self {
            memory: HostMemory::new(config.memory),
            slots: Arc::new(Semaphore::new(config.max_instances as usize)),
            waiting_for_slots: AtomicUsize::new(0),
            workers: OnceLock::new(),
            changes: Arc::default(),
            registry: Mutex::default(),
            compiler: Arc::new(compiler),
            config,
            engine,
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

    /// Places of the pool for one instance, at once or never. Where none is free, idle instances of this worker
    /// make room.
    pub(crate) fn slot_now(&self, permits: u32) -> Option<OwnedSemaphorePermit> {
        loop {
            if let Ok(slot) = Arc::clone(&self.slots).try_acquire_many_owned(permits) {
                return Some(slot);
            }
            if !Local::current().is_some_and(|local| local.reclaim_one()) {
                return None;
            }
        }
    }

    /// Places of the pool for one instance. Where none is free, idle instances make room, here first; then it
    /// waits.
    pub(crate) async fn slot(
        &self,
        permits: u32,
        until: Instant,
    ) -> Result<OwnedSemaphorePermit, RequestError> {
        if let Some(slot) = self.slot_now(permits) {
            return Ok(slot);
        }
        self.waiting_for_slots.fetch_add(1, Relaxed);
        let _waits = WaitsForSlot(&self.waiting_for_slots);
        let mut slot = pin!(timeout_at(until, Arc::clone(&self.slots).acquire_many_owned(permits)));
        loop {
            self.ask_for_room(permits);
            tokio::select! {
                biased;
                slot = &mut slot => {
                    return slot.map_err(|_| RequestError::HostFull)?.map_err(|_| RequestError::Stopped);
                }
                () = tokio::time::sleep(ASK_AGAIN) => {}
            }
        }
    }

    /// Asks all workers to let idle instances go.
    fn ask_for_room(&self, permits: u32) {
        for worker in self.workers() {
            worker.try_order(Box::new(move |local| {
                for _ in 0..permits {
                    local.reclaim_one();
                }
            }));
        }
    }

    /// Whether an instance may stay in memory after its request.
    pub(crate) fn may_keep_instances(&self) -> bool {
        self.waiting_for_slots.load(Relaxed) == 0
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn register(&self, observed: &Arc<Observed>) {
        self.registry().partitions.insert(observed.id.clone(), Arc::clone(observed));
    }

    pub(crate) fn unregister(&self, observed: &Observed) {
        let mut registry = self.registry();
        if registry.partitions.remove(&observed.id).is_some() {
            let meter = observed.read_meter();
            registry.closed_cpu += observed.cpu_since_start(&meter);
            registry.closed += &meter;
        }
    }

    /// All partitions, sorted by id.
    pub(crate) fn observe(&self) -> Vec<Arc<Observed>> {
        self.registry().partitions.values().cloned().collect()
    }

    /// What closed partitions used: in all, and of processor time since the start.
    pub(crate) fn closed(&self) -> (Meter, Duration) {
        let registry = self.registry();
        (registry.closed.clone(), registry.closed_cpu)
    }
}
