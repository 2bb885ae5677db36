//! Why an HVM could not start, compile, open, upgrade or close. Why a request failed is in
//! [`crate::RequestError`].

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use hvm_types::{ByteSize, Capability, Digest, Epoch, ReplicaId, SchemaError};

use crate::RequestError;
use crate::state::ImportError;

/// Why an HVM could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The host allows too few memory mappings for the instances asked for.
    #[error(
        "start {instances} instances: they need {needed} memory mappings and the host allows {allowed}; \
         run `sysctl -w vm.max_map_count={needed}` or lower `max_instances` and `max_deterministic_instances` to {possible} together"
    )]
    MapCount {
        /// Instances asked for.
        instances: u32,
        /// Mappings needed.
        needed: u64,
        /// Mappings allowed.
        allowed: u64,
        /// Instances that would fit.
        possible: u32,
    },
    /// The process may not reserve enough address space.
    #[error(
        "start {instances} instances: they reserve {needed} of address space and the process may have {allowed}; \
         run `ulimit -v unlimited` before, or lower `max_instances` and `max_deterministic_instances` to {possible} together"
    )]
    AddressSpace {
        /// Instances asked for.
        instances: u32,
        /// Address space needed.
        needed: ByteSize,
        /// Address space allowed.
        allowed: ByteSize,
        /// Instances that would fit.
        possible: u32,
    },
    /// A process has not enough addresses.
    #[error(
        "start {instances} instances: no process has enough addresses for them; lower `max_instances` and `max_deterministic_instances` to {possible} together"
    )]
    TooManyInstances {
        /// Instances asked for.
        instances: u32,
        /// Instances that would fit.
        possible: u32,
    },
    /// The kernel does not overcommit memory, and has too little to commit.
    #[error(
        "start {instances} instances: the kernel commits {needed} for them and has {allowed} left; \
         run `sysctl -w vm.overcommit_memory=0` or lower `max_instances` and `max_deterministic_instances` to {possible} together"
    )]
    Commit {
        /// Instances asked for.
        instances: u32,
        /// Bytes needed.
        needed: ByteSize,
        /// Bytes left.
        allowed: ByteSize,
        /// Instances that would fit.
        possible: u32,
    },
    /// The engine refused its settings.
    #[error("start the WebAssembly engine for {instances} instances: {reason}; lower `max_instances`")]
    Engine {
        /// Instances asked for.
        instances: u32,
        /// Why.
        reason: String,
    },
    /// The directory for compiled code can't be used.
    #[error("use {} for compiled code: {reason}", path.display())]
    CodeCache {
        /// The directory.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A thread could not be started.
    #[error("start worker thread {worker}")]
    Worker {
        /// Its number.
        worker: usize,
        /// Why.
        source: io::Error,
    },
}

/// Why a component was not compiled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// It is larger than allowed.
    #[error("compile {digest}: it has {size}, more than the {limit} allowed")]
    TooLarge {
        /// The component.
        digest: Digest,
        /// Its size.
        size: ByteSize,
        /// The limit.
        limit: ByteSize,
    },
    /// It is no component.
    #[error("compile {digest}: it is no WebAssembly component: {reason}")]
    NotAComponent {
        /// What was given.
        digest: Digest,
        /// What is wrong with it.
        reason: String,
    },
    /// It imports what nobody offers.
    #[error(
        "compile {digest}: it imports `{import}`, which this host does not offer; it offers WASI 0.2, \
         wasi:keyvalue@0.2.0-draft, wasi:config@0.2.0-rc.1 and wasi:logging@0.1.0-draft"
    )]
    UnknownImport {
        /// The component.
        digest: Digest,
        /// The import.
        import: String,
    },
    /// It exports no request handler.
    #[error(
        "compile {digest}: it exports neither `wasi:http/incoming-handler@0.2` nor `hvm:app/handler@0.1.0`, so it \
         can't answer requests"
    )]
    NoHandler {
        /// The component.
        digest: Digest,
    },
    /// It does not fit a place for an instance.
    #[error("compile {digest}: an instance needs {what}, more than the {limit} that a place has")]
    DoesNotFit {
        /// The component.
        digest: Digest,
        /// What it needs.
        what: String,
        /// What there is.
        limit: String,
    },
    /// It takes too much processor time.
    #[error(
        "compile {digest}: it took more than the {limit:?} of processor time that it may; it is tried again in ten \
         minutes"
    )]
    TooSlow {
        /// The component.
        digest: Digest,
        /// The limit.
        limit: Duration,
    },
    /// It was not done in time, without having used up its processor time.
    #[error("compile {digest}: it was not done after {limit:?}; the host may be too busy")]
    TimedOut {
        /// The component.
        digest: Digest,
        /// The limit.
        limit: Duration,
    },
    /// It takes too much memory.
    #[error(
        "compile {digest}: it took more than the {limit} of memory that it may; it is tried again in ten minutes"
    )]
    NoMemory {
        /// The component.
        digest: Digest,
        /// The limit.
        limit: ByteSize,
    },
    /// Its code is too long.
    #[error("compile {digest}: its code is longer than {limit}")]
    CodeTooLarge {
        /// The component.
        digest: Digest,
        /// The limit.
        limit: ByteSize,
    },
    /// The process that compiled it was ended by a signal.
    #[error("compile {digest}: the compiling process was ended by signal {signal}: {reason}")]
    Crashed {
        /// The component.
        digest: Digest,
        /// The signal's number (signal(7)).
        signal: i32,
        /// What it said before.
        reason: String,
    },
    /// The process or thread that should compile it could not.
    #[error("compile {digest}: the compiling process failed: {reason}")]
    Process {
        /// The component.
        digest: Digest,
        /// Why.
        reason: String,
    },
    /// The engine for its metering can't be made.
    #[error("compile {digest} for deterministic metering: {reason}")]
    NoEngine {
        /// The component.
        digest: Digest,
        /// Why.
        reason: String,
    },
    /// The compiler or the linker refused it.
    #[error("compile {digest}: {reason}")]
    Refused {
        /// The component.
        digest: Digest,
        /// Why.
        reason: String,
    },
    /// The HVM is stopping, or nobody waits for the module any more.
    #[error("compile {digest}: it was broken off, because the HVM stops or nobody wants it any more")]
    Stopped {
        /// The component.
        digest: Digest,
    },
}

impl CompileError {
    /// Whether another try would most likely end in the same way.
    pub(crate) const fn is_of_component(&self) -> bool {
        !matches!(
            self,
            Self::TimedOut { .. }
                | Self::Crashed { .. }
                | Self::Process { .. }
                | Self::NoEngine { .. }
                | Self::Stopped { .. }
        )
    }
}

/// A capability that a component imports and that was not granted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the component imports `{import}`, which needs the capability `{capability}`: it is not granted")]
pub struct NotGranted {
    /// The import.
    pub import: String,
    /// What it needs.
    pub capability: Capability,
}

/// Why a partition was not opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// It is open already.
    #[error("open {id}: it is open already; close it first, or upgrade it")]
    AlreadyOpen {
        /// The partition.
        id: ReplicaId,
    },
    /// Its component needs what it was not granted.
    #[error("open {id}: {source}")]
    NotGranted {
        /// The partition.
        id: ReplicaId,
        /// What.
        source: NotGranted,
    },
    /// Its grants or resources make no sense.
    #[error("open {id}: {reason}")]
    Invalid {
        /// The partition.
        id: ReplicaId,
        /// What is wrong.
        reason: String,
    },
    /// Its state could not be opened.
    #[error("{0}")]
    State(#[from] crate::state::OpenError),
    /// No instance of it could be made.
    #[error("open {id}: its component does not start: {reason}")]
    Instance {
        /// The partition.
        id: ReplicaId,
        /// Why not.
        reason: String,
    },
    /// Its state is not in the layout that it needs, and was not brought into it.
    #[error("open {id}: {source}")]
    Migration {
        /// The partition.
        id: ReplicaId,
        /// Why not.
        source: MigrationError,
    },
    /// The HVM is stopping.
    #[error("open {id}: the HVM is stopping")]
    Stopped {
        /// The partition.
        id: ReplicaId,
    },
}

impl OpenError {
    /// The newer epoch, where the partition belongs to another owner.
    #[must_use]
    pub const fn fenced_by(&self) -> Option<Epoch> {
        match self {
            Self::State(crate::state::OpenError::Fenced { newest, .. }) => Some(*newest),
            _ => None,
        }
    }
}

/// Why a partition's state is not in the layout that a version needs. Nothing of it was changed, except where
/// [`RequestError::CommitUnavailable`] says that this is unknown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MigrationError {
    /// The version can't run on this state, and has no migration that could change it. Nothing of it has run.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// The guest says no.
    #[error(
        "its migration from layout {from} to {to} was refused by the guest: {answered}; nothing was changed"
    )]
    Refused {
        /// The layout of the state.
        from: u32,
        /// That of the version.
        to: u32,
        /// Status or kind, and the beginning of the guest's own words.
        answered: String,
    },
    /// It was not done in time.
    #[error(
        "its migration from layout {from} to {to} took longer than {limit:?} (`migration_deadline`); nothing was changed"
    )]
    Deadline {
        /// The layout of the state.
        from: u32,
        /// That of the version.
        to: u32,
        /// The limit.
        limit: Duration,
    },
    /// The guest was stopped or did not answer, or what it wrote was not committed.
    #[error("its migration from layout {from} to {to} failed: {source}")]
    Stopped {
        /// The layout of the state.
        from: u32,
        /// That of the version.
        to: u32,
        /// Why.
        source: Box<RequestError>,
    },
}

/// Why a partition was not upgraded. What ran before goes on, unless it was fenced.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UpgradeError {
    /// It is not open.
    #[error("upgrade {id}: it does not run here; open it")]
    Unknown {
        /// The partition.
        id: ReplicaId,
    },
    /// It is being closed or has failed.
    #[error("upgrade {id}: it is {state}; close it and open it again")]
    NotServing {
        /// The partition.
        id: ReplicaId,
        /// Its state.
        state: String,
    },
    /// A partition can't become stateless, nor a replica a partition.
    #[error("upgrade {id}: a partition with state can't become a replica without, nor the other way round")]
    StateChange {
        /// The partition.
        id: ReplicaId,
    },
    /// The new version could not be prepared.
    #[error("upgrade: {0}")]
    Open(#[from] OpenError),
    /// The state that was to be imported is in another layout than what runs reads.
    #[error(
        "import {id}: the state is in layout {imported}, and the version that runs knows {known}: import it while a version \
         with layout {imported} runs, and upgrade that"
    )]
    ImportLayout {
        /// The partition.
        id: ReplicaId,
        /// The layout of the state.
        imported: u32,
        /// That of the version that runs.
        known: u32,
    },
    /// The engine did not take the state that was to be imported.
    #[error(transparent)]
    Import(#[from] ImportError),
}

/// Why a partition was not closed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CloseError {
    /// It is not open.
    #[error("close {id}: it does not run here")]
    Unknown {
        /// The partition.
        id: ReplicaId,
    },
}

/// The worker has stopped, and with it the HVM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the HVM has stopped")]
pub struct WorkerStopped;
