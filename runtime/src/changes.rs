//! Which partitions changed their state since somebody looked, so that an agent with many of them need not look at all.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hvm_types::{ReplicaId, ReplicaState};
use tokio::sync::Notify;

use crate::observed::Observed;

/// The partitions that changed. Each is in it at most once, and none before somebody asks for changes.
#[derive(Default)]
pub(crate) struct ChangeList {
    is_asked: AtomicBool,
    changed: Mutex<Vec<Arc<Observed>>>,
    came: Notify,
}

impl ChangeList {
    /// Takes note of a change.
    pub(crate) fn note(&self, observed: &Arc<Observed>) {
        if self.is_asked.load(SeqCst) && observed.mark_changed() {
            self.lock().push(Arc::clone(observed));
            self.came.notify_one();
        }
    }

    /// From now on changes are noted; the first are the partitions that are there.
    pub(crate) fn ask(&self, all: &[Arc<Observed>]) {
        self.is_asked.store(true, SeqCst);
        for observed in all {
            self.note(observed);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Observed>>> {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The changes of state of an HVM's partitions. Several of them share the changes out.
pub struct StateChanges(pub(crate) Arc<ChangeList>);

impl StateChanges {
    /// Resolves to the partitions whose state changed since the last call, with the state that they are in now:
    /// at once where there are any. What changed several times is there once.
    pub async fn next(&mut self) -> Vec<(ReplicaId, ReplicaState)> {
        loop {
            let came = self.0.came.notified();
            let changed = std::mem::take(&mut *self.0.lock());
            if !changed.is_empty() {
                return changed
                    .iter()
                    .map(|observed| (observed.id.clone(), observed.take_change()))
                    .collect();
            }
            came.await;
        }
    }
}

impl fmt::Debug for StateChanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateChanges").field("waiting", &self.0.lock().len()).finish()
    }
}
