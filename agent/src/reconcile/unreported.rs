//! Which replicas a report must speak of: those that changed since the one before, so that a host where nothing happens
//! says nothing.

use std::collections::BTreeSet;

use hvm_types::{ReplicaId, ReplicaReport};

/// What changed since the last report.
#[derive(Debug)]
pub(crate) enum Unreported {
    /// So much that all of it is reported.
    Everything,
    /// These replicas.
    Some(BTreeSet<ReplicaId>),
}

impl Default for Unreported {
    fn default() -> Self {
        Self::Some(BTreeSet::new())
    }
}

impl Unreported {
    /// Takes note that a replica changed.
    pub(crate) fn add(&mut self, replica: &ReplicaId) {
        if let Self::Some(replicas) = self {
            replicas.insert(replica.clone());
        }
    }
}

/// What the scheduler is told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct HostReport {
    /// Whether it speaks of all replicas: what is not in it is gone.
    pub(crate) is_whole: bool,
    /// The replicas that it speaks of.
    pub(crate) replicas: Vec<ReplicaReport>,
    /// Those that are gone.
    pub(crate) gone: Vec<ReplicaId>,
    /// Version of the newest document all of whose removals and purges are done.
    pub(crate) applied: u64,
}
