//! Opening a partition on its worker: recovering, then ready.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use hvm_types::{Epoch, Meter, ReplicaId, ReplicaState};
use tokio::sync::Notify;

use super::Partition;
use super::lane::Lane;
use super::version::{self, Version};
use crate::capability::PartitionLog;
use crate::host::Host;
use crate::observed::Observed;
use crate::state::{self, PartitionState};
use crate::worker::{CpuAccount, Local, Slot};
use crate::{LogLevel, OpenError, PartitionSpec};

/// Holds a partition's place while it is being opened.
struct Place {
    local: Rc<Local>,
    id: ReplicaId,
    opened: bool,
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.opened {
            self.local.partitions.borrow_mut().remove(&self.id);
        }
    }
}

/// Opens a partition on this worker.
pub(crate) async fn open(host: Arc<Host>, spec: PartitionSpec) -> Result<(), OpenError> {
    let id = spec.id.clone();
    let Some(local) = Local::current() else { return Err(OpenError::Stopped { id }) };
    let egress = version::check(&host, &spec)?;
    let mut place = take_place(&local, &id)?;
    let state = if spec.stateful { Some(open_state(&host, &id, spec.epoch).await?) } else { None };
    let used = match &state {
        Some(state) => state.meter().map_err(|error| read_failed(&id, &error))?,
        None => Meter::default(),
    };
    let latency = host.latency_of(&id);
    let observed = Observed::new(id.clone(), spec.epoch, spec.generation, &used, &host.changes, latency);
    let log = PartitionLog::new(id.clone(), Arc::clone(&host.config.log));
    let (stateful, epoch, generation) = (spec.stateful, spec.epoch, spec.generation);
    let version = Version::new(&host, &observed, &log, spec, egress, state);
    observed.set_version(epoch, generation, version.spec.resources.mailbox, &version.memory);
    if let Some(state) = &version.state {
        let sequence = state.sequence().map_err(|error| read_failed(&id, &error))?;
        observed.set_committed(sequence, state.stored_bytes().ok());
    }
    host.register(&observed);
    let rate = host.config.cpu_rate(version.spec.resources.cpu);
    let cpu = CpuAccount::new(&observed.meter, &observed.throttled, rate, &local.turns);
    let warmed = local.slices.metered(&cpu, version.warm(&host, &observed)).await;
    if let Err(error) = warmed {
        host.unregister(&observed);
        return Err(error);
    }
    let most_queries =
        if stateful { host.config.queries_per_partition } else { host.config.requests_per_replica };
    let partition = Rc::new(Partition {
        slices: Rc::clone(&local.slices),
        cpu,
        observed,
        log,
        version: RefCell::new(version),
        committed_meter: RefCell::new(used),
        behind: Cell::new(0),
        changed: Notify::new(),
        commands: Lane::new(1),
        queries: Lane::new(most_queries),
        accepted: Cell::new(0),
        draining: Cell::new(false),
        drained: Notify::new(),
        upgrading: tokio::sync::Mutex::new(()),
        host,
    });
    if let Err(error) = partition.migrate_first(&local).await {
        partition.host.unregister(&partition.observed);
        return Err(error);
    }
    partition.observed.set_state(ReplicaState::Ready);
    partition.log.host(LogLevel::Info, &format!("ready: generation {generation}, epoch {epoch}"));
    local.partitions.borrow_mut().insert(id, Slot::Open(partition));
    place.opened = true;
    Ok(())
}

impl Partition {
    /// Brings the state into the layout of the version that is about to run, before anybody can ask it.
    async fn migrate_first(self: &Rc<Self>, local: &Local) -> Result<(), OpenError> {
        let version = self.version();
        local.slices.metered(&self.cpu, Box::pin(self.migrate(&version))).await
    }
}

fn take_place(local: &Rc<Local>, id: &ReplicaId) -> Result<Place, OpenError> {
    let mut partitions = local.partitions.borrow_mut();
    if partitions.contains_key(id) {
        return Err(OpenError::AlreadyOpen { id: id.clone() });
    }
    partitions.insert(id.clone(), Slot::Opening);
    Ok(Place { local: Rc::clone(local), id: id.clone(), opened: false })
}

/// Opens a partition's state off the worker: it waits for the disk.
pub(super) async fn open_state(
    host: &Arc<Host>,
    id: &ReplicaId,
    epoch: Epoch,
) -> Result<Arc<dyn PartitionState>, OpenError> {
    let (engine, opened) = (Arc::clone(&host.state), id.clone());
    let result = tokio::task::spawn_blocking(move || engine.open(&opened, epoch)).await;
    let unavailable = |reason: String| state::OpenError::Unavailable { id: id.clone(), reason };
    Ok(result.unwrap_or_else(|error| Err(unavailable(error.to_string())))?)
}

pub(super) fn read_failed(id: &ReplicaId, error: &state::ReadError) -> OpenError {
    let id = id.clone();
    OpenError::State(match error {
        state::ReadError::Corrupt { what } => state::OpenError::Corrupt { id, what: what.clone() },
        error => state::OpenError::Unavailable { id, reason: error.to_string() },
    })
}
