//! One window of the books, and the sums over many.

use std::collections::BTreeMap;
use std::time::Duration;

use hvm_runtime::UsedSince;
use hvm_types::{Meter, ReplicaId};
use serde::{Deserialize, Serialize};

/// What was used in one window. Processor time of the partitions and of the host sums to the process'.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Window {
    pub(crate) from_unix_millis: u64,
    pub(crate) to_unix_millis: u64,
    pub(crate) process_cpu: Duration,
    /// Processor time that is no partition's.
    pub(crate) host_cpu: Duration,
    /// The partitions that used anything.
    pub(crate) partitions: BTreeMap<ReplicaId, Meter>,
}

impl Window {
    pub(crate) fn starting_at(unix_millis: u64) -> Self {
        Self { from_unix_millis: unix_millis, to_unix_millis: unix_millis, ..Self::default() }
    }

    /// Whether nothing happened in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.process_cpu.is_zero() && self.partitions.is_empty()
    }

    /// Adds what was used until then.
    pub(crate) fn add(&mut self, used: &UsedSince, unix_millis: u64) {
        // The wall clock may be set back; a window does not end before it begins.
        self.to_unix_millis = unix_millis.max(self.to_unix_millis);
        self.process_cpu += used.process_cpu;
        self.host_cpu += used.host_cpu;
        for partition in used.partitions.iter().filter(|partition| partition.meter != Meter::default()) {
            *self.partitions.entry(partition.id.clone()).or_default() += &partition.meter;
        }
    }

    /// Adds the window that follows.
    pub(crate) fn join(&mut self, next: &Self) {
        self.to_unix_millis = self.to_unix_millis.max(next.to_unix_millis);
        self.process_cpu += next.process_cpu;
        self.host_cpu += next.host_cpu;
        for (id, meter) in &next.partitions {
            *self.partitions.entry(id.clone()).or_default() += meter;
        }
    }

    /// Makes room where there are too many partitions: what the first of those used that are not `open` becomes the
    /// host's own.
    pub(crate) fn bound(&mut self, most: usize, is_open: impl Fn(&ReplicaId) -> bool) {
        let excess = self.partitions.len().saturating_sub(most);
        let gone: Vec<_> = self.partitions.keys().filter(|id| !is_open(id)).take(excess).cloned().collect();
        for id in gone {
            if let Some(meter) = self.partitions.remove(&id) {
                self.host_cpu += meter.cpu;
            }
        }
    }
}
