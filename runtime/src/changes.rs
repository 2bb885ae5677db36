//! Which partitions changed their state since somebody looked, so that an agent with many of them need not look at all.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hvm_types::{ReplicaId, ReplicaState};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use crate::observed::Observed;

/// How often somebody hears of instances that come and go: a partition with an instance for each request wakes and
/// hibernates thousands of times a second. Told each time, the switches of who listens took 15 % of all processor
/// time.
const PAUSE: Duration = Duration::from_millis(100);

/// The partitions that changed. Each is in it at most once, and none before somebody asks for changes.
#[derive(Default)]
pub(crate) struct ChangeList {
    is_asked: AtomicBool,
    changed: Mutex<Vec<Arc<Observed>>>,
    came: Notify,
    /// Whether who listens sleeps until anything changes; else they look again within a pause.
    sleeps: AtomicBool,
}

impl ChangeList {
    /// Takes note of a change that is to be told at once.
    pub(crate) fn note(&self, observed: &Arc<Observed>) {
        if self.is_asked.load(SeqCst) {
            self.add(observed);
            self.came.notify_one();
        }
    }

    /// Takes note of an instance that came or went.
    pub(crate) fn note_instance(&self, observed: &Arc<Observed>) {
        if self.is_asked.load(SeqCst) && self.add(observed) && self.sleeps.swap(false, SeqCst) {
            self.came.notify_one();
        }
    }

    /// True where its change was not noted yet.
    fn add(&self, observed: &Arc<Observed>) -> bool {
        let is_new = observed.mark_changed();
        if is_new {
            self.lock().push(Arc::clone(observed));
        }
        is_new
    }

    /// From now on changes are noted; the first are the partitions that are there.
    pub(crate) fn ask(&self, all: &[Arc<Observed>]) {
        self.is_asked.store(true, SeqCst);
        for observed in all {
            self.note(observed);
        }
    }

    fn take(&self) -> Vec<(ReplicaId, ReplicaState)> {
        let changed = std::mem::take(&mut *self.lock());
        changed.iter().map(|observed| (observed.id.clone(), observed.take_change())).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Observed>>> {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The changes of state of an HVM's partitions. Several of them share the changes out.
pub struct StateChanges {
    list: Arc<ChangeList>,
    /// Until then only what is to be told at once is told.
    not_before: Instant,
}

impl StateChanges {
    pub(crate) fn new(list: &Arc<ChangeList>) -> Self {
        Self { list: Arc::clone(list), not_before: Instant::now() }
    }

    /// Resolves to the partitions whose state changed since the last call, with the state that they are in now:
    /// at once where there are any, and within a tenth of a second where they only woke or hibernated. What changed
    /// several times is there once.
    pub async fn next(&mut self) -> Vec<(ReplicaId, ReplicaState)> {
        loop {
            let _pause_over = timeout_at(self.not_before, self.list.came.notified()).await;
            let mut changed = self.list.take();
            if changed.is_empty() {
                self.list.sleeps.store(true, SeqCst);
                // What came in between found nobody asleep.
                changed = self.list.take();
            }
            if changed.is_empty() {
                self.list.came.notified().await;
                changed = self.list.take();
            }
            self.list.sleeps.store(false, SeqCst);
            self.not_before = Instant::now() + PAUSE;
            if !changed.is_empty() {
                return changed;
            }
        }
    }
}

impl fmt::Debug for StateChanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateChanges").field("waiting", &self.list.lock().len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use hvm_types::{Epoch, Generation, Meter};

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn is_pending(changes: &mut StateChanges) -> bool {
        pin!(changes.next()).poll(&mut Context::from_waker(Waker::noop())).is_pending()
    }

    #[tokio::test]
    async fn instances_that_come_and_go_are_told_after_a_pause_and_other_changes_at_once() {
        let list = Arc::new(ChangeList::default());
        let id: ReplicaId = "ledger/accounts/0".parse().expect("a valid id");
        let (epoch, meter) = (Epoch(1), Meter::default());
        let observed = Observed::new(id.clone(), epoch, Generation(1), &meter, &list, Arc::default());
        observed.set_state(ReplicaState::Ready);
        list.ask(&[Arc::clone(&observed)]);
        let mut changes = StateChanges::new(&list);
        assert_eq!(changes.next().await, [(id.clone(), ReplicaState::Hibernated)]);

        changes.not_before = Instant::now() + HOUR;
        observed.instance_came();
        assert!(is_pending(&mut changes), "it woke within the pause");
        observed.set_state(ReplicaState::Draining);
        assert_eq!(changes.next().await, [(id.clone(), ReplicaState::Draining)], "told at once");

        observed.set_state(ReplicaState::Ready);
        assert_eq!(changes.next().await, [(id.clone(), ReplicaState::Ready)]);
        changes.not_before = Instant::now();
        let mut sleeping = pin!(changes.next());
        let mut context = Context::from_waker(Waker::noop());
        while !list.sleeps.load(SeqCst) {
            assert!(sleeping.as_mut().poll(&mut context).is_pending(), "nothing changed");
            // The timer of the pause runs out between two polls.
            tokio::task::yield_now().await;
        }
        observed.instance_went();
        let told = sleeping.poll(&mut context);
        assert_eq!(told, Poll::Ready(vec![(id, ReplicaState::Hibernated)]), "who sleeps is woken");
    }
}
