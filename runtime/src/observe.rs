//! What can be seen of partitions from outside, at any time, also while a guest hangs.

use std::time::Duration;

use hvm_types::{ByteSize, Epoch, Generation, Meter, ReplicaId, ReplicaState, Sequence};

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
    /// Instances in memory.
    pub instances: u32,
    /// Bytes of linear memories, tables and waiting request bodies.
    pub memory: ByteSize,
    /// Bytes of durable state, as of its last commit.
    pub stored: ByteSize,
    /// What it does now, the longest-running first; empty while it is idle.
    pub doing: Vec<Doing>,
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
