//! What ran of replicas before a new document replaced it. Where their state can't be migrated for what is new, that
//! serves on; it is kept on disk, so that it does over a restart too.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hvm_types::{Assignment, HostDocument, ReplicaId};
use tokio::sync::Mutex;

use super::document::{DocumentError, DocumentStore};

/// The notes, one for each replica whose replacement is not known to run.
#[derive(Debug, Clone)]
pub(crate) struct Before {
    store: DocumentStore,
    notes: Arc<Mutex<BTreeMap<ReplicaId, Assignment>>>,
    /// The disk has notes that were forgotten.
    is_behind: Arc<AtomicBool>,
}

/// What a new document replaces of a replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Replaced {
    pub(crate) assignment: Assignment,
    /// Whether it runs; otherwise it only was to.
    pub(crate) runs: bool,
}

impl Before {
    /// The notes of an agent that was here before.
    ///
    /// # Errors
    /// Where they can't be read.
    pub(crate) fn open(store: DocumentStore) -> Result<Self, DocumentError> {
        let assignments = store.load()?.map(|document| document.assignments).unwrap_or_default();
        let notes = assignments.into_iter().map(|before| (before.replica.clone(), before)).collect();
        Ok(Self { store, notes: Arc::new(Mutex::new(notes)), is_behind: Arc::default() })
    }

    /// Notes what is replaced, durably, and forgets replicas that are not wanted any more.
    ///
    /// # Errors
    /// Where it can't be kept.
    pub(crate) async fn note(
        &self,
        replaced: Vec<Replaced>,
        is_wanted: impl Fn(&ReplicaId) -> bool,
    ) -> Result<(), DocumentError> {
        let mut notes = self.notes.lock().await;
        let known = notes.len();
        notes.retain(|replica, _| is_wanted(replica));
        let mut has_changed = notes.len() != known;
        for Replaced { assignment, runs } in replaced {
            match notes.entry(assignment.replica.clone()) {
                Entry::Vacant(vacant) => drop(vacant.insert(assignment)),
                // What was to run and did not yet is nothing to go back to.
                Entry::Occupied(mut noted) if runs && *noted.get() != assignment => {
                    drop(noted.insert(assignment));
                }
                Entry::Occupied(_) => continue,
            }
            has_changed = true;
        }
        if has_changed { self.save(&notes).await } else { Ok(()) }
    }

    /// What ran of a replica.
    pub(crate) async fn of(&self, replica: &ReplicaId) -> Option<Assignment> {
        self.notes.lock().await.get(replica).cloned()
    }

    /// What replaced it runs. On disk the note stays until [`settle`](Self::settle).
    pub(crate) async fn forget(&self, replica: &ReplicaId) {
        if self.notes.lock().await.remove(replica).is_some() {
            self.is_behind.store(true, Ordering::Relaxed);
        }
    }

    /// Makes durable what was forgotten.
    ///
    /// # Errors
    /// Where it can't be kept.
    pub(crate) async fn settle(&self) -> Result<(), DocumentError> {
        if !self.is_behind.swap(false, Ordering::Relaxed) {
            return Ok(());
        }
        let notes = self.notes.lock().await;
        self.save(&notes).await
    }

    async fn save(&self, notes: &BTreeMap<ReplicaId, Assignment>) -> Result<(), DocumentError> {
        let assignments = notes.values().cloned().collect();
        let (store, document) = (self.store.clone(), HostDocument { assignments, ..HostDocument::default() });
        let saved = tokio::task::spawn_blocking(move || store.save(&document)).await;
        saved.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
    }
}

#[cfg(test)]
mod tests {
    use hvm_types::{Digest, Epoch, Generation};

    use super::*;

    fn running(replica: &str, generation: u64) -> Assignment {
        let task = r#"{"name": "t", "driver": "app-partition", "config": {"package": "web"}}"#;
        Assignment {
            replica: replica.parse().expect("a replica"),
            generation: Generation(generation),
            epoch: Epoch(1),
            image: Digest::of(b"image"),
            stateful: true,
            retention: hvm_types::RetentionSpec::default(),
            task: serde_json::from_str(task).map(Arc::new).expect("a task"),
        }
    }

    fn replaced(replica: &str, generation: u64, runs: bool) -> Vec<Replaced> {
        vec![Replaced { assignment: running(replica, generation), runs }]
    }

    #[tokio::test]
    async fn notes_outlive_the_agent_until_they_are_not_needed() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let open = || Before::open(DocumentStore::new(dir.path().join("before.json"))).expect("readable");
        let generation = async |before: &Before, replica: &str| {
            before.of(&replica.parse().expect("a replica")).await.map(|before| before.generation.0)
        };
        let before = open();
        before.note(replaced("d/g/0", 1, true), |_| true).await.expect("kept");
        before.note(replaced("d/g/1", 1, false), |_| true).await.expect("kept");
        before.note(replaced("d/g/0", 2, false), |_| true).await.expect("kept");
        before.note(replaced("d/g/1", 2, true), |_| true).await.expect("kept");
        let before = open();
        assert_eq!(generation(&before, "d/g/0").await, Some(1), "the second never ran");
        assert_eq!(generation(&before, "d/g/1").await, Some(2));
        before.forget(&"d/g/0".parse().expect("a replica")).await;
        before.settle().await.expect("kept");
        let before = open();
        assert_eq!(generation(&before, "d/g/0").await, None);
        before.note(Vec::new(), |_| false).await.expect("kept");
        assert_eq!(generation(&open(), "d/g/1").await, None, "nobody wants it any more");
    }
}
