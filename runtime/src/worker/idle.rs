//! Which versions of partitions have idle instances, and since when: the order in which instances go. It holds no
//! instance and bounds nothing; there is at most one entry for each version that has, or lately had, an idle one.

use std::cell::RefCell;
use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::Notify;

use crate::memory::MemoryAccount;
use crate::partition::Version;

/// Versions with idle instances, the longest-idle first.
#[derive(Default)]
pub(crate) struct IdleOrder {
    entries: RefCell<BinaryHeap<Reverse<Entry>>>,
    added: Notify,
}

/// A version that has not been idle for longer than this. It may have served since: what is true stands in the
/// version, and is looked up when the entry's turn comes, so that a request changes nothing here.
struct Entry {
    since: Instant,
    version: Weak<Version>,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.since == other.since
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        self.since.cmp(&other.since)
    }
}

impl IdleOrder {
    /// Adds a version that is not in it.
    pub(crate) fn add(&self, since: Instant, version: &Rc<Version>) {
        self.entries.borrow_mut().push(Reverse(Entry { since, version: Rc::downgrade(version) }));
        self.added.notify_one();
    }

    /// Resolves when a version was added since this was last called.
    pub(super) async fn added(&self) {
        self.added.notified().await;
    }

    /// No instance is idle for longer than since then. `None` where none is idle.
    pub(super) fn earliest(&self) -> Option<Instant> {
        self.entries.borrow().peek().map(|Reverse(entry)| entry.since)
    }

    /// Drops the instance that has been idle for longest, if that is since `before` or longer. False where none is.
    /// Without `before`, it is gone when this returns: its place is needed.
    pub(super) fn drop_one(&self, before: Option<Instant>) -> bool {
        loop {
            let Some(Reverse(entry)) = self.entries.borrow_mut().pop() else { return false };
            if before.is_some_and(|before| entry.since > before) {
                self.entries.borrow_mut().push(Reverse(entry));
                return false;
            }
            let Some(version) = entry.version.upgrade() else { continue };
            // An entry of its true time comes up again only when it is the earliest of all.
            let is_true = version.idle_since() == Some(entry.since);
            // Dropping an instance may write its last line to the log: nothing is borrowed here.
            let idle = is_true.then(|| version.take_longest_idle()).flatten();
            let dropped = idle.is_some();
            if before.is_none()
                && let Some(idle) = idle
            {
                idle.drop_here();
            }
            match version.idle_since() {
                Some(since) => self.entries.borrow_mut().push(Reverse(Entry { since, ..entry })),
                None => version.unlist(),
            }
            if dropped {
                return true;
            }
        }
    }

    /// The version whose memory this account counts, where it has idle instances.
    pub(super) fn of_account(&self, account: &Arc<MemoryAccount>) -> Option<Rc<Version>> {
        let entries = self.entries.borrow();
        let mut versions = entries.iter().filter_map(|Reverse(entry)| entry.version.upgrade());
        versions.find(|version| Arc::ptr_eq(&version.memory, account))
    }
}
