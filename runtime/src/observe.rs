//! What can be seen of partitions from outside, at any time, also while a guest hangs.

use std::time::Duration;

use hvm_types::{ByteSize, Epoch, Generation, Meter, Metering, ReplicaId, ReplicaState, Sequence};

use crate::Durations;

/// One partition or stateless replica, as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionStatus {
    /// Which.
    pub id: ReplicaId,
    /// Where it is in its life.
    pub state: ReplicaState,
    /// The generation that runs.
    pub generation: Generation,
    /// The ownership it runs in.
    pub epoch: Epoch,
    /// Number of its last committed record.
    pub sequence: Sequence,
    /// Requests that wait.
    pub mailbox: u32,
    /// Requests in the guest that wait because the partition has used up its share of the processor.
    pub throttled: u32,
    /// Instances in memory.
    pub instances: u32,
    /// Bytes of linear memories, tables and waiting request bodies.
    pub memory: ByteSize,
    /// Bytes of durable state, as of its last commit.
    pub stored: ByteSize,
    /// The requests that it has accepted and not answered, the oldest first; empty while it is idle.
    pub doing: Vec<Doing>,
}

/// What all partitions share, as it is now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostObservation {
    /// The pool of instances of each way of metering, in the order of [`Metering::ALL`].
    pub pools: Vec<PoolObservation>,
    /// What waits to be handed over, for each worker.
    pub queues: Vec<u32>,
    /// Memory that partitions hold.
    pub memory: ByteSize,
    /// Memory that they may hold.
    pub memory_limit: ByteSize,
    /// How long it took to make components ready, each time it was asked for.
    pub preparations: Durations,
    /// Commits that were refused because another host owned the partition by then.
    pub fenced_commits: u64,
    /// The processes that compiled for this one.
    pub compile_children: CompileChildren,
}

/// One pool of instances.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolObservation {
    /// How those are metered that have places in it.
    pub metering: Metering,
    /// All places.
    pub places: u32,
    /// Those that no instance holds.
    pub free: u32,
    /// Requests that wait for one.
    pub waiting: u32,
}

/// Processes that compiled and have ended, however they did, since the HVM started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CompileChildren {
    /// How many.
    pub ended: u64,
    /// Their processor time.
    pub cpu: Duration,
}

/// A request that was accepted and is not answered yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doing {
    /// Its number among the partition's requests since it was opened, from 1. Log lines name it too.
    pub number: u64,
    /// Method and path. The query is left out: it may hold secrets.
    pub what: String,
    /// For how long.
    pub since: Duration,
    /// What is being done for it now.
    pub phase: Phase,
    /// For how long that, to some milliseconds.
    pub in_phase: Duration,
    /// The trace that it belongs to, where its sender named one (`traceparent`) or spans are recorded: 32 hexadecimal
    /// digits.
    pub trace: Option<String>,
}

/// What is being done for a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// Its body is being read.
    Body,
    /// It waits for a record of the partition to be committed, which it asked for.
    Record,
    /// It waits for its turn in the partition.
    Turn,
    /// It waits for a place in the pool of instances.
    Place,
    /// An instance is being made.
    Start,
    /// The guest runs, or waits for something of its own.
    Guest,
    /// The guest reads state.
    State {
        /// How many keys at once; 0 for a listing.
        keys: u32,
    },
    /// The guest waits for an outgoing request, unless it does something else meanwhile.
    Call {
        /// Scheme, host and port.
        origin: String,
    },
    /// What it wrote is being made durable.
    Commit,
    /// The partition has used up its share of the processor.
    Throttled,
}

impl Phase {
    /// One word for it.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Body => "body",
            Self::Record => "record",
            Self::Turn => "turn",
            Self::Place => "place",
            Self::Start => "start",
            Self::Guest => "guest",
            Self::State { .. } => "state",
            Self::Call { .. } => "call",
            Self::Commit => "commit",
            Self::Throttled => "throttled",
        }
    }
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Body => "reads its body",
            Self::Record => "waits for a record",
            Self::Turn => "waits for its turn",
            Self::Place => "waits for an instance's place",
            Self::Start => "starts an instance",
            Self::Guest => "in the guest",
            Self::State { keys: 0 } => "lists keys of state",
            Self::State { keys } => return write!(f, "reads {keys} keys of state"),
            Self::Call { origin } => return write!(f, "in the guest, which calls {origin}"),
            Self::Commit => "commits",
            Self::Throttled => "waits for its share of the processor",
        })
    }
}

/// What was used since the HVM started, or for partitions with state since they were made. Processor time of
/// `partitions`, `closed` and `host` sums to that of the process and of those that compiled for it, for what was used
/// since the start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// By partition, those that are open now.
    pub partitions: Vec<PartitionUsage>,
    /// Of partitions that were closed since.
    pub closed: Meter,
    /// What the process used that is no partition's: compiling, connections, commits, bookkeeping.
    pub host: Meter,
}

/// What was used since it was last asked for: see [`Hvm::drain_usage`](crate::Hvm::drain_usage). Processor time of
/// `partitions` and `host_cpu` sum to `process_cpu`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UsedSince {
    /// By partition, those that used anything or were opened; sorted by id.
    pub partitions: Vec<PartitionUsage>,
    /// Processor time that is no partition's.
    pub host_cpu: Duration,
    /// Processor time of the whole process, and of the processes that compiled for it, when they end.
    pub process_cpu: Duration,
}

/// What one partition used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionUsage {
    /// Which.
    pub id: ReplicaId,
    /// What it used.
    pub meter: Meter,
    /// Bytes of durable state that it holds now.
    pub stored: ByteSize,
}
