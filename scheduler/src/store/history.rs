//! The last changes, so that watches can begin in the past and need no queues of their own: each reads
//! here from its own revision on. One that falls further behind than the history reaches is told so.

use std::collections::VecDeque;

use super::{Change, Revision, StoreError};

/// Most changes remembered.
const MAX_CHANGES: usize = 8_192;
/// Most bytes of values remembered.
const MAX_BYTES: usize = 64 << 20;

/// Changes by growing revision.
#[derive(Debug)]
pub(super) struct History {
    changes: VecDeque<Change>,
    bytes: usize,
    /// Every change after this one is here.
    oldest: Revision,
}

impl History {
    pub(super) fn new(current: Revision) -> Self {
        Self { changes: VecDeque::new(), bytes: 0, oldest: current }
    }

    /// Appends the changes of one transaction.
    pub(super) fn push(&mut self, changes: impl IntoIterator<Item = Change>) {
        for change in changes {
            self.bytes += size_of_change(&change);
            self.changes.push_back(change);
        }
        while self.changes.len() > MAX_CHANGES || self.bytes > MAX_BYTES {
            let Some(dropped) = self.changes.pop_front() else { break };
            self.bytes -= size_of_change(&dropped);
            self.oldest = dropped.revision();
        }
    }

    /// What happened under `prefix` after `after`.
    pub(super) fn after(&self, prefix: &str, after: Revision) -> Result<Vec<Change>, StoreError> {
        if after < self.oldest {
            return Err(StoreError::Compacted { after, oldest: self.oldest });
        }
        let start = self.changes.partition_point(|change| change.revision() <= after);
        let later = self.changes.range(start..);
        Ok(later.filter(|change| change.key().starts_with(prefix)).cloned().collect())
    }
}

fn size_of_change(change: &Change) -> usize {
    match change {
        Change::Put(entry) => entry.key.len() + entry.value.len(),
        Change::Delete { key, .. } => key.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delete(revision: u64) -> Change {
        Change::Delete { key: format!("k/{revision}"), revision: Revision(revision) }
    }

    #[test]
    fn a_watcher_that_fell_behind_is_told() {
        let mut history = History::new(Revision(5));
        assert!(history.after("", Revision(5)).is_ok_and(|changes| changes.is_empty()));
        assert!(history.after("", Revision(4)).is_err());
        for revision in 6..=6 + MAX_CHANGES as u64 {
            history.push([delete(revision)]);
        }
        assert!(matches!(
            history.after("", Revision(5)),
            Err(StoreError::Compacted { oldest: Revision(6), .. })
        ));
        assert_eq!(history.after("", Revision(6)).map(|changes| changes.len()).ok(), Some(MAX_CHANGES));
        assert_eq!(history.after("k/7", Revision(6)).map(|c| c[0].clone()).ok(), Some(delete(7)));
    }
}
