//! What a plan is made from.

use std::collections::BTreeMap;

use hvm_types::{DeploymentName, HostSpec, ReplicaReport};

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
