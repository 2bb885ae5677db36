//! What hosts said last. In memory only: after a restart they say it again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hvm_types::HostId;
use tokio::sync::watch;

use crate::planner::Observation;

/// The last report of each host.
#[derive(Debug)]
pub(crate) struct Observations {
    hosts: Mutex<BTreeMap<HostId, Arc<Observation>>>,
    changes: watch::Sender<u64>,
}

impl Observations {
    pub(crate) fn new() -> Self {
        Self { hosts: Mutex::default(), changes: watch::channel(0).0 }
    }

    /// Takes in a report. One that repeats the last wakes nobody.
    pub(crate) fn report(&self, host: &HostId, observation: Observation) {
        let mut hosts = self.lock();
        if hosts.get(host).is_some_and(|last| **last == observation) {
            return;
        }
        hosts.insert(host.clone(), Arc::new(observation));
        drop(hosts);
        self.changes.send_modify(|count| *count += 1);
    }

    /// Forgets what a host said: it was away since.
    pub(crate) fn forget(&self, host: &HostId) {
        if self.lock().remove(host).is_some() {
            self.changes.send_modify(|count| *count += 1);
        }
    }

    /// What all hosts said.
    pub(crate) fn all(&self) -> BTreeMap<HostId, Arc<Observation>> {
        self.lock().clone()
    }

    /// Wakes at every change.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<HostId, Arc<Observation>>> {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
