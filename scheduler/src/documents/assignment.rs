//! What one host runs.

use std::collections::{BTreeMap, BTreeSet};

use hvm_types::{Epoch, Generation, HostId};
use serde::{Deserialize, Serialize};

use super::GroupKey;

/// How a host owns a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ownership {
    /// The generation it shall run.
    pub generation: Generation,
    /// The number of the ownership.
    pub epoch: Epoch,
}

/// The replicas of one group on one host, by their numbers.
pub type GroupAssignments = BTreeMap<u32, Ownership>;

/// What one host runs, and what it deletes. What a replica runs stands in the deployment's document, so
/// that 65,536 of them fit one transaction here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AssignmentDocument {
    /// The replicas it owns. No group is empty.
    #[serde(with = "groups")]
    pub groups: BTreeMap<GroupKey, GroupAssignments>,
    /// The partitions whose state it deletes. None is assigned to it; no group is empty.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub purge: BTreeMap<GroupKey, BTreeSet<u32>>,
    /// Of the replicas it owns, those that it is not told of before another host has let go of them, and that host: so
    /// what the other one has accepted is still answered. No group is empty.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub waits: BTreeMap<GroupKey, BTreeMap<u32, HostId>>,
}

impl AssignmentDocument {
    /// Number of replicas.
    #[must_use]
    pub fn len(&self) -> usize {
        self.groups.values().map(BTreeMap::len).sum()
    }

    /// Whether the host has nothing to run.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// Assigns a replica, or changes how it is owned.
    pub fn assign(&mut self, group: &GroupKey, index: u32, ownership: Ownership) {
        if let Some(replicas) = self.groups.get_mut(group) {
            replicas.insert(index, ownership);
        } else {
            self.groups.insert(group.clone(), [(index, ownership)].into());
        }
    }

    /// Takes a replica away.
    pub fn remove(&mut self, group: &GroupKey, index: u32) {
        if let Some(replicas) = self.groups.get_mut(group) {
            replicas.remove(&index);
            if replicas.is_empty() {
                self.groups.remove(group);
            }
        }
        self.stop_waiting(group, index);
    }

    /// The host that still has a replica which this one owns.
    #[must_use]
    pub fn waits_for(&self, group: &GroupKey, index: u32) -> Option<&HostId> {
        self.waits.get(group)?.get(&index)
    }

    /// The other host has let go of a replica.
    pub fn stop_waiting(&mut self, group: &GroupKey, index: u32) {
        if let Some(waits) = self.waits.get_mut(group) {
            waits.remove(&index);
            if waits.is_empty() {
                self.waits.remove(group);
            }
        }
    }
}

/// Groups as stored: per replica a triple of number, generation and epoch.
mod groups {
    use std::collections::BTreeMap;

    use hvm_types::{Epoch, Generation};
    use serde::{Deserialize, Deserializer, Serializer};

    use super::{GroupAssignments, GroupKey, Ownership};

    type Groups = BTreeMap<GroupKey, GroupAssignments>;

    pub(super) fn serialize<S: Serializer>(groups: &Groups, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(groups.iter().map(|(key, replicas)| {
            let triples = replicas.iter().map(|(i, owned)| (*i, owned.generation.0, owned.epoch.0));
            (key, triples.collect::<Vec<_>>())
        }))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Groups, D::Error> {
        let stored: BTreeMap<GroupKey, Vec<(u32, u64, u64)>> = BTreeMap::deserialize(from)?;
        let read = |(i, generation, epoch)| {
            (i, Ownership { generation: Generation(generation), epoch: Epoch(epoch) })
        };
        Ok(stored.into_iter().map(|(key, list)| (key, list.into_iter().map(read).collect())).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::documents::{decode, encode};

    #[test]
    fn sixty_thousand_assignments_fit_a_transaction() {
        let group: GroupKey = "ledger/accounts".parse().expect("a valid key");
        let mut document = AssignmentDocument::default();
        for index in 0..65_536 {
            let ownership = Ownership { generation: Generation(100), epoch: Epoch(100) };
            document.assign(&group, index, ownership);
        }
        document.purge.insert("old/group".parse().expect("a valid key"), [3].into());
        let bytes = encode(&document);
        assert!(bytes.len() < crate::store::MAX_TRANSACTION_BYTES, "{} bytes", bytes.len());
        assert_eq!(decode::<AssignmentDocument>("k", &bytes).expect("what was written"), document);
        for index in 0..65_536 {
            document.remove(&group, index);
        }
        assert!(document.is_empty());
    }
}
