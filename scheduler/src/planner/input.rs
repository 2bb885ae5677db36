//! What a plan is made from.

use std::collections::BTreeMap;

use hvm_types::{DeploymentName, HostSpec, ReplicaId, ReplicaReport};

use crate::documents::{AssignmentDocument, DeploymentDocument, GroupKey, OwnershipDocument};

/// Everything a plan depends on.
#[derive(Debug, Clone, Default)]
pub struct PlanInput<'a> {
    /// What is wanted.
    pub deployments: BTreeMap<&'a DeploymentName, &'a DeploymentDocument>,
    /// Epochs used and homes of state.
    pub ownership: BTreeMap<&'a GroupKey, &'a OwnershipDocument>,
    /// The hosts that ever joined, each once, in any order.
    pub hosts: Vec<HostInput<'a>>,
}

/// One host.
#[derive(Debug, Clone, Copy)]
pub struct HostInput<'a> {
    /// What it said of itself.
    pub spec: &'a HostSpec,
    /// Whether its lease holds.
    pub alive: bool,
    /// What it is told to run.
    pub assignments: &'a AssignmentDocument,
    /// Version of `assignments`; 0 where there never were any.
    pub version: u64,
    /// What it said last; `None` where it said nothing since the scheduler started.
    pub observed: Option<&'a Observation>,
}

/// What a host said last of its replicas.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observation {
    /// The newest document version all of whose removals and purges it has done.
    pub applied: u64,
    /// Its replicas.
    pub replicas: BTreeMap<GroupKey, BTreeMap<u32, ReplicaReport>>,
}

impl Observation {
    /// From what a host reported.
    #[must_use]
    pub fn new(applied: u64, reports: impl IntoIterator<Item = ReplicaReport>) -> Self {
        let mut replicas: BTreeMap<GroupKey, BTreeMap<u32, ReplicaReport>> = BTreeMap::new();
        for report in reports {
            replicas.entry(GroupKey::of(&report.replica)).or_default().insert(report.replica.index, report);
        }
        Self { applied, replicas }
    }

    /// Takes in what changed. True where a plan could differ for it: one that serves has or has not an instance,
    /// which no plan looks at.
    pub(crate) fn change(&mut self, applied: u64, replicas: Vec<ReplicaReport>, gone: &[ReplicaId]) -> bool {
        let mut matters = self.applied != applied;
        self.applied = applied;
        for report in replicas {
            let group = self.replicas.entry(GroupKey::of(&report.replica)).or_default();
            let now_serves = report.state.serves();
            let without_state =
                |report: &ReplicaReport| (report.generation, report.epoch, report.image, report.next.clone());
            let (index, new) = (report.replica.index, without_state(&report));
            let before = group.insert(index, report);
            let same =
                before.is_some_and(|old| old.state.serves() && now_serves && without_state(&old) == new);
            matters |= !same;
        }
        for replica in gone {
            if let Some(group) = self.replicas.get_mut(&GroupKey::of(replica)) {
                matters |= group.remove(&replica.index).is_some();
                if group.is_empty() {
                    self.replicas.remove(&GroupKey::of(replica));
                }
            }
        }
        matters
    }

    /// What it said of one replica.
    #[must_use]
    pub fn replica(&self, group: &GroupKey, index: u32) -> Option<&ReplicaReport> {
        self.replicas.get(group)?.get(&index)
    }

    /// Whether it has finished the removals and purges of a document.
    pub(super) const fn has_applied(&self, version: u64) -> bool {
        self.applied >= version
    }
}
