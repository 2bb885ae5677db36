//! What can be seen of partitions from outside, at any time, also while a guest hangs.

use std::time::Duration;

use hvm_types::{ByteSize, Epoch, Generation, Meter, ReplicaId, ReplicaState, Sequence};

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
    /// What it does now, the longest-running first; empty while it is idle.
    pub doing: Vec<Doing>,
}

/// What all partitions share, as it is now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostObservation {
    /// Places of the pool, and those of them that no instance holds.
    pub places: u32,
    /// See `places`.
    pub free_places: u32,
    /// Requests that wait for a place.
    pub waiting_for_places: u32,
    /// What waits to be handed over, for each worker.
    pub queues: Vec<u32>,
    /// Memory that partitions hold.
    pub memory: ByteSize,
    /// Memory that they may hold.
    pub memory_limit: ByteSize,
    /// How long it took to make components ready, each time it was asked for.
    pub preparations: Durations,
}

/// A request that is in the guest now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doing {
    /// Method and path. The query is left out: it may hold secrets.
    pub what: String,
    /// For how long.
    pub since: Duration,
}

/// What was used since the HVM started, or for partitions with state since they were made. Processor time of
/// `partitions`, `closed` and `host` sums to that of the process for what was used since the start.
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
    /// Processor time of the whole process.
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
