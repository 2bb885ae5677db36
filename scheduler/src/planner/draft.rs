//! The documents while a plan is made: copied when first changed, and in the end only those that differ.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use hvm_types::HostId;

use super::fleet::Fleet;
use super::{PlanStep, StepAction};
use crate::documents::{AssignmentDocument, GroupKey, Ownership, OwnershipDocument};

/// The plan as far as it is made.
#[derive(Debug, Default)]
pub(super) struct Draft {
    hosts: HashMap<usize, AssignmentDocument>,
    pub(super) ownership: BTreeMap<GroupKey, OwnershipDocument>,
    pub(super) steps: Vec<PlanStep>,
}

impl Draft {
    /// A host's document, to be changed.
    pub(super) fn host(&mut self, fleet: &Fleet<'_>, number: usize) -> &mut AssignmentDocument {
        self.hosts.entry(number).or_insert_with(|| fleet.input(number).assignments.clone())
    }

    /// A host's document as the plan leaves it so far.
    pub(super) fn seen<'a>(&'a self, fleet: &Fleet<'a>, number: usize) -> &'a AssignmentDocument {
        self.hosts.get(&number).unwrap_or(fleet.input(number).assignments)
    }

    pub(super) fn assign(
        &mut self,
        fleet: &Fleet<'_>,
        number: usize,
        group: &GroupKey,
        index: u32,
        ownership: Ownership,
    ) {
        self.host(fleet, number).assign(group, index, ownership);
    }

    pub(super) fn remove(&mut self, fleet: &Fleet<'_>, number: usize, group: &GroupKey, index: u32) {
        self.host(fleet, number).remove(group, index);
    }

    pub(super) fn step(&mut self, group: &Arc<GroupKey>, index: u32, action: StepAction) {
        self.steps.push(PlanStep { group: Arc::clone(group), index, action });
    }

    /// The hosts' documents that differ from what they were.
    pub(super) fn changed_hosts(&mut self, fleet: &Fleet<'_>) -> BTreeMap<HostId, AssignmentDocument> {
        let differs =
            |number: usize, document: &AssignmentDocument| document != fleet.input(number).assignments;
        std::mem::take(&mut self.hosts)
            .into_iter()
            .filter(|(number, document)| differs(*number, document))
            .map(|(number, document)| (fleet.id(number).clone(), document))
            .collect()
    }
}
