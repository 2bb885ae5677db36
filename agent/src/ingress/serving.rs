//! What the ingress must know: the routes, and which replicas here take requests. Each worker keeps a
//! reference of its own and looks only whether there is a newer one.

use std::sync::Arc;

use hvm_types::{DeploymentName, GroupName, ReplicaId};
use rustc_hash::FxHashMap;

use super::Router;

/// One state of the routes and replicas; it never changes.
#[derive(Debug, Default)]
pub(crate) struct Serving {
    /// `None` until there is a host document.
    router: Option<Arc<Router>>,
    ready: ReadySet,
}

/// Replicas, a bit for each: a new state of thousands of them is made whenever one comes or goes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct ReadySet(FxHashMap<DeploymentName, FxHashMap<GroupName, Vec<u64>>>);

impl ReadySet {
    pub(crate) fn insert(&mut self, replica: &ReplicaId) {
        let (word, bit) = place(replica.index);
        let of_deployment = match self.0.get_mut(&replica.deployment) {
            Some(of_deployment) => of_deployment,
            None => self.0.entry(replica.deployment.clone()).or_default(),
        };
        let bits = match of_deployment.get_mut(&replica.group) {
            Some(bits) => bits,
            None => of_deployment.entry(replica.group.clone()).or_default(),
        };
        if bits.len() <= word {
            bits.resize(word + 1, 0);
        }
        bits[word] |= bit;
    }

    fn contains(&self, replica: &ReplicaId) -> bool {
        let (word, bit) = place(replica.index);
        let bits = self.0.get(&replica.deployment).and_then(|groups| groups.get(&replica.group));
        bits.and_then(|bits| bits.get(word)).is_some_and(|bits| bits & bit != 0)
    }
}

fn place(index: u32) -> (usize, u64) {
    (index as usize / 64, 1 << (index % 64))
}

impl<'r> FromIterator<&'r ReplicaId> for ReadySet {
    fn from_iter<I: IntoIterator<Item = &'r ReplicaId>>(replicas: I) -> Self {
        let mut set = Self::default();
        for replica in replicas {
            set.insert(replica);
        }
        set
    }
}

impl Serving {
    pub(crate) fn new(router: Arc<Router>, ready: ReadySet) -> Self {
        Self { router: Some(router), ready }
    }

    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let is_same_router = match (&self.router, &other.router) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (one, other) => one.is_none() && other.is_none(),
        };
        is_same_router && self.ready == other.ready
    }

    pub(crate) fn router(&self) -> Option<&Router> {
        self.router.as_deref()
    }

    pub(crate) fn is_ready(&self, replica: &ReplicaId) -> bool {
        self.ready.contains(replica)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_what_was_put_in_and_nothing_else() {
        let id = |text: &str| -> ReplicaId { text.parse().expect("a replica") };
        let ids = [id("d/g/0"), id("d/g/64"), id("d/other/3"), id("e/g/1000")];
        let set: ReadySet = ids.iter().collect();
        assert!(ids.iter().all(|id| set.contains(id)));
        for absent in ["d/g/1", "d/g/63", "d/g/65", "d/other/0", "e/g/1001", "f/g/0"] {
            assert!(!set.contains(&id(absent)), "{absent}");
        }
        assert_eq!(set, ids.iter().rev().collect());
    }
}
