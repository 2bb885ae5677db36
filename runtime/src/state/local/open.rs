//! The partitions that are open, as the committer knows them.
//!
//! The newest of each is kept beside its cell, so that a record need not read it from the database. It is what
//! the last durable batch left: a batch that fails changes nothing here.

use std::collections::HashMap;
use std::sync::Arc;

use super::layout::Number;
use super::shared::Cell;
use super::stage::Newest;

/// Partitions until those without a handle are looked for.
const LEAST_SWEPT: usize = 64;

/// The partitions that are open: at most twice as many as have a handle, and some.
#[derive(Default)]
pub(super) struct OpenPartitions {
    partitions: HashMap<Number, Open>,
    /// As many as were left when it was looked last.
    held: usize,
}

struct Open {
    cell: Arc<Cell>,
    newest: Newest,
}

impl OpenPartitions {
    /// The newest of a partition, if it is open.
    pub(super) fn newest(&self, number: Number) -> Option<&Newest> {
        Some(&self.partitions.get(&number)?.newest)
    }

    /// Takes note of what a batch left, once it is durable. The view that shows it is locked meanwhile.
    pub(super) fn publish(&mut self, changed: HashMap<Number, Option<Newest>>) {
        for (number, newest) in changed {
            match (self.partitions.get_mut(&number), newest) {
                (Some(open), Some(newest)) => {
                    open.cell.publish(&newest.head);
                    open.newest = newest;
                }
                (Some(open), None) => open.cell.remove(),
                (None, _) => {}
            }
        }
    }

    /// The cell of a partition that was opened as this, durably.
    pub(super) fn opened(&mut self, newest: Newest) -> Arc<Cell> {
        if let Some(open) = self.partitions.get_mut(&newest.head.number) {
            // The second of two openings in one batch finds the first one's cell.
            if newest.head.epoch > open.newest.head.epoch {
                open.cell.publish(&newest.head);
                open.newest = newest;
            }
            return Arc::clone(&open.cell);
        }
        if self.partitions.len() >= LEAST_SWEPT.max(2 * self.held) {
            // Only here a handle is made of a cell, so one that nobody else has will never have one.
            self.partitions.retain(|_, open| Arc::strong_count(&open.cell) > 1);
            self.held = self.partitions.len();
        }
        let cell = Arc::new(Cell::new(&newest.head));
        let open = Open { cell: Arc::clone(&cell), newest };
        self.partitions.insert(open.newest.head.number, open);
        cell
    }

    /// Forgets a partition that was removed, durably.
    pub(super) fn removed(&mut self, number: Number) {
        if let Some(open) = self.partitions.remove(&number) {
            // It may have been opened in the batch that removed it.
            open.cell.remove();
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.partitions.len()
    }
}

#[cfg(test)]
mod tests {
    use hvm_types::Epoch;

    use super::super::layout::{Head, Past};
    use super::*;

    fn newest(number: u64, epoch: u64) -> Newest {
        let number = Number(number);
        Newest { head: Head::empty(number, Epoch(epoch)), past: Past::none(number) }
    }

    #[test]
    fn partitions_without_a_handle_are_forgotten_in_time() {
        let mut open = OpenPartitions::default();
        let kept: Vec<_> = (0..100).map(|number| open.opened(newest(number, 1))).collect();
        for number in 100..10_000 {
            drop(open.opened(newest(number, 1)));
        }
        assert!(open.len() <= 300, "{} are known", open.len());
        for (number, cell) in (0..).zip(kept) {
            assert!(Arc::ptr_eq(&cell, &open.opened(newest(number, 1))), "a handle lost its cell");
        }
    }

    #[test]
    fn an_older_opening_of_the_same_batch_changes_nothing() {
        let mut open = OpenPartitions::default();
        let cell = open.opened(newest(1, 5));
        open.opened(newest(1, 4));
        assert!(cell.check(Epoch(5)).is_ok());
        open.opened(newest(1, 6));
        assert!(cell.check(Epoch(5)).is_err());
        assert_eq!(open.newest(Number(1)), Some(&newest(1, 6)));
    }
}
