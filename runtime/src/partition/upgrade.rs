//! Upgrading a partition: the new version is made ready beside the old one and takes over between two
//! commands. Queries that run keep the version they began with. Where the state has to be migrated first, that happens
//! between the same two commands; where it fails, the old version goes on with them.

use std::rc::Rc;
use std::sync::Arc;

use hvm_types::ReplicaState;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::pinned::Work;
use super::version::{self, Version};
use super::{Partition, migrate, open};
use crate::egress::EgressPolicy;
use crate::state::{self, Import, ImportHead, PartitionState};
use crate::worker::{Local, Slot};
use crate::{LogLevel, OpenError, PartitionSpec, UpgradeError};

/// A change of version that waits for the commands before it.
pub(super) struct Swap {
    next: Next,
    done: oneshot::Sender<Result<(), UpgradeError>>,
}

pub(super) enum Next {
    /// It is ready.
    Ready(Rc<Version>),
    /// It comes with a new ownership. Opening the state for it fences the old one, so that may only happen
    /// when no command runs.
    NewEpoch(Box<PartitionSpec>, EgressPolicy),
    /// What runs stays; its state is replaced.
    Import(Box<dyn Import>, ImportHead),
}

impl Swap {
    /// A change, and what tells how it went.
    pub(super) fn new(next: Next) -> (Self, oneshot::Receiver<Result<(), UpgradeError>>) {
        let (done, result) = oneshot::channel();
        (Self { next, done }, result)
    }
}

/// No query of a partition runs as long as this lives; those that come wait.
pub(super) struct QueriesHalted<'a>(&'a Rc<Partition>);

impl<'a> QueriesHalted<'a> {
    pub(super) async fn begin(partition: &'a Rc<Partition>) -> Self {
        partition.queries.halt();
        let halted = Self(partition);
        partition.queries.left().await;
        halted
    }
}

impl Drop for QueriesHalted<'_> {
    fn drop(&mut self) {
        for _ in 0..self.0.queries.resume() {
            self.0.run_lane(|partition| &partition.queries);
        }
    }
}

/// Upgrades a partition on this worker. Of several upgrades at a time, each begins when the one before is done.
pub(crate) async fn upgrade(spec: PartitionSpec) -> Result<(), UpgradeError> {
    let id = spec.id.clone();
    let Some(Slot::Open(partition)) = Local::current().and_then(|local| local.partition(&id)) else {
        return Err(UpgradeError::Unknown { id });
    };
    let _alone = partition.upgrading.lock().await;
    partition.check_ready()?;
    let current = partition.version();
    if current.spec.stateful != spec.stateful {
        return Err(UpgradeError::StateChange { id });
    }
    if spec.stateful && spec.epoch < current.spec.epoch {
        let (epoch, newest) = (spec.epoch, current.spec.epoch);
        return Err(UpgradeError::Open(state::OpenError::Fenced { id, epoch, newest }.into()));
    }
    let egress = version::check(&partition.host, &spec)?;
    if let Some(state) = &current.state {
        // Nothing of a version runs that can't run on what is there.
        migrate::from(&spec, &**state)?;
    }
    let next = if current.spec.epoch == spec.epoch || !spec.stateful {
        let preparing = partition.prepare(spec, egress, current.state.clone());
        Next::Ready(partition.slices.metered(&partition.cpu, preparing).await?)
    } else {
        Next::NewEpoch(Box::new(spec), egress)
    };
    let (swap, result) = Swap::new(next);
    partition.commands.push_front(Work::Swap(Box::new(swap)));
    partition.run_lane(|partition| &partition.commands);
    let stopped = UpgradeError::NotServing { id, state: "stopping".to_owned() };
    result.await.unwrap_or(Err(stopped))
}

impl Partition {
    pub(super) fn check_ready(&self) -> Result<(), UpgradeError> {
        match self.observed.state() {
            ReplicaState::Ready => Ok(()),
            state => {
                let id = self.observed.id.clone();
                Err(UpgradeError::NotServing { id, state: state.to_string() })
            }
        }
    }

    /// Makes a version ready: an instance of it stands by.
    async fn prepare(
        &self,
        spec: PartitionSpec,
        egress: EgressPolicy,
        state: Option<Arc<dyn PartitionState>>,
    ) -> Result<Rc<Version>, OpenError> {
        let version = Version::new(&self.host, &self.observed, &self.log, spec, egress, state);
        version.warm(&self.host, &self.observed).await?;
        Ok(version)
    }

    /// Takes the next version into use. No command runs meanwhile: this is one of them.
    pub(super) async fn swap(self: &Rc<Self>, swap: Swap) {
        let began = Instant::now();
        let result = self.try_swap(swap.next).await;
        // What waited for it keeps the time that it would have had.
        let now = Instant::now();
        let give_back = |work: &mut Work| {
            if let Work::Request(job) = work {
                job.deadline += now - job.arrived.max(began);
            }
        };
        self.commands.each_waiting(give_back);
        self.queries.each_waiting(give_back);
        drop(swap.done.send(result));
    }

    async fn try_swap(self: &Rc<Self>, next: Next) -> Result<(), UpgradeError> {
        // It may have been closed, or fenced, while this waited.
        self.check_ready()?;
        match next {
            Next::Ready(version) => self.take_over_same(version).await?,
            Next::NewEpoch(spec, egress) => self.take_over(*spec, egress).await?,
            Next::Import(import, head) => self.take_over_import(import, head).await?,
        }
        self.check_ready()
    }

    pub(super) fn install(&self, version: Rc<Version>) {
        let (epoch, generation) = (version.spec.epoch, version.spec.generation);
        self.observed.set_version(epoch, generation, version.spec.resources.mailbox, &version.memory);
        self.cpu.set_rate(self.host.config.cpu_rate(version.spec.resources.cpu));
        self.log.host(LogLevel::Info, &format!("generation {generation} took over"));
        // The old version goes with its idle instances, or with its last query.
        drop(self.version.replace(version));
        self.changed.notify_waiters();
    }

    /// Runs the new version in the same ownership, after its migration where there is one. While the migration
    /// computes, queries go on with the old version; between its commit and the change none may run.
    async fn take_over_same(self: &Rc<Self>, version: Rc<Version>) -> Result<(), OpenError> {
        let from = match &version.state {
            Some(state) => migrate::from(&version.spec, &**state)?,
            None => None,
        };
        let Some(from) = from else {
            self.install(version);
            return Ok(());
        };
        let migrated = self.run_migration(&version, from).await?;
        let halted = timeout_at(migrated.until(), QueriesHalted::begin(self)).await;
        let _halted = halted.map_err(|_| migrated.too_late(&version))?;
        self.commit_migration(&version, migrated).await?;
        self.install(version);
        Ok(())
    }

    /// Opens the state for a new ownership and runs the new version in it; where that does not start, the old
    /// one. A query that ran meanwhile would find its state owned by the new epoch and fail: so none does.
    async fn take_over(self: &Rc<Self>, spec: PartitionSpec, egress: EgressPolicy) -> Result<(), OpenError> {
        let _halted = QueriesHalted::begin(self).await;
        let (id, epoch) = (spec.id.clone(), spec.epoch);
        let state = match open::open_state(&self.host, &id, epoch).await {
            Ok(state) => state,
            Err(error) => {
                if let Some(newest) = error.fenced_by() {
                    self.observed.set_state(ReplicaState::Fenced { epoch: newest });
                }
                return Err(error);
            }
        };
        let ready = async {
            let version = self.prepare(spec, egress, Some(Arc::clone(&state))).await?;
            self.migrate(&version).await.map(|()| version)
        };
        match ready.await {
            Ok(version) => {
                self.install(version);
                Ok(())
            }
            Err(error) => {
                let old = PartitionSpec { epoch, ..self.version().spec.clone() };
                let egress = version::check(&self.host, &old)?;
                self.install(Version::new(&self.host, &self.observed, &self.log, old, egress, Some(state)));
                Err(error)
            }
        }
    }
}
