//! What hosts said last. In memory only: after a restart they say it again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hvm_types::{HostId, ReplicaId, ReplicaReport};
use tokio::sync::watch;

use crate::planner::Observation;

/// The last report of each host.
#[derive(Debug)]
pub(crate) struct Observations {
    hosts: Mutex<BTreeMap<HostId, Said>>,
    changes: watch::Sender<u64>,
}

/// What one host said.
#[derive(Debug)]
struct Said {
    /// The number of its last report.
    number: u64,
    observation: Arc<Observation>,
}

/// What a host says has changed since an earlier report.
#[derive(Debug)]
pub(crate) struct Changed {
    /// The number of that report.
    pub(crate) after: u64,
    /// As in [`Observation`].
    pub(crate) applied: u64,
    /// The replicas that differ.
    pub(crate) replicas: Vec<ReplicaReport>,
    /// The replicas that are gone.
    pub(crate) gone: Vec<ReplicaId>,
}

impl Observations {
    pub(crate) fn new() -> Self {
        Self { hosts: Mutex::default(), changes: watch::channel(0).0 }
    }

    /// Takes in a report of everything. One that repeats the last wakes nobody.
    pub(crate) fn report(&self, host: &HostId, number: u64, observation: Observation) {
        let mut hosts = self.lock();
        if let Some(said) = hosts.get_mut(host)
            && *said.observation == observation
        {
            said.number = number;
            return;
        }
        hosts.insert(host.clone(), Said { number, observation: Arc::new(observation) });
        drop(hosts);
        self.changes.send_modify(|count| *count += 1);
    }

    /// Takes in a report of what changed. `false` where the report that it comes after is not the last one here: then
    /// it is not taken. It wakes whoever plans only where a plan could differ for it.
    pub(crate) fn report_changed(&self, host: &HostId, number: u64, changed: Changed) -> bool {
        let mut hosts = self.lock();
        let Some(said) = hosts.get_mut(host).filter(|said| said.number == changed.after) else {
            return false;
        };
        said.number = number;
        let matters = if changed.replicas.is_empty()
            && changed.gone.is_empty()
            && changed.applied == said.observation.applied
        {
            false
        } else {
            Arc::make_mut(&mut said.observation).change(changed.applied, changed.replicas, &changed.gone)
        };
        drop(hosts);
        if matters {
            self.changes.send_modify(|count| *count += 1);
        }
        true
    }

    /// Forgets what a host said: it was away since.
    pub(crate) fn forget(&self, host: &HostId) {
        if self.lock().remove(host).is_some() {
            self.changes.send_modify(|count| *count += 1);
        }
    }

    /// What all hosts said.
    pub(crate) fn all(&self) -> BTreeMap<HostId, Arc<Observation>> {
        self.lock().iter().map(|(host, said)| (host.clone(), Arc::clone(&said.observation))).collect()
    }

    /// Wakes at every change.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<HostId, Said>> {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use hvm_types::{Digest, Epoch, Generation, ReplicaState};

    use super::*;
    use crate::documents::GroupKey;

    fn report(index: u32, state: ReplicaState) -> ReplicaReport {
        ReplicaReport {
            replica: format!("d/g/{index}").parse().expect("a replica"),
            generation: Generation(1),
            epoch: Epoch(1),
            image: Digest::of(b"image"),
            state,
            next: None,
        }
    }

    fn changed(after: u64, replicas: Vec<ReplicaReport>, gone: &[u32]) -> Changed {
        let gone = gone.iter().map(|index| report(*index, ReplicaState::Ready).replica).collect();
        Changed { after, applied: 1, replicas, gone }
    }

    #[test]
    fn a_change_is_taken_only_after_the_report_that_it_changes() {
        let host: HostId = "a".parse().expect("a host");
        let observations = Observations::new();
        assert!(!observations.report_changed(&host, 8, changed(7, vec![], &[])), "nothing was said before");
        let all = [0, 1].map(|index| report(index, ReplicaState::Ready));
        observations.report(&host, 7, Observation::new(1, all));
        let mut changes = observations.changes();
        changes.borrow_and_update();

        assert!(observations.report_changed(&host, 8, changed(7, vec![], &[])));
        assert!(observations.report_changed(
            &host,
            9,
            changed(8, vec![report(0, ReplicaState::Hibernated)], &[])
        ));
        assert!(!changes.has_changed().expect("it lives"), "no plan differs for that");
        assert!(!observations.report_changed(&host, 10, changed(8, vec![], &[0])), "one was lost in between");
        assert!(observations.report_changed(
            &host,
            10,
            changed(9, vec![report(2, ReplicaState::Ready)], &[1])
        ));
        assert!(changes.has_changed().expect("it lives"));
        let group: GroupKey = "d/g".parse().expect("a group");
        let said = &observations.all()[&host];
        assert_eq!(said.replicas[&group].keys().copied().collect::<Vec<_>>(), [0, 2]);
        assert_eq!(said.replica(&group, 0).expect("there").state, ReplicaState::Hibernated);

        observations.forget(&host);
        assert!(!observations.report_changed(&host, 11, changed(10, vec![], &[])));
    }
}
