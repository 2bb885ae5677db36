//! A lane: work in order of arrival, done by at most so many tasks at a time. It bounds nothing but the
//! tasks; how much may wait is decided before something is put here.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use tokio::sync::Notify;

/// Work in order of arrival.
#[derive(Debug)]
pub(super) struct Lane<W> {
    waiting: RefCell<VecDeque<W>>,
    tasks: Cell<u32>,
    most_tasks: u32,
    halted: Cell<bool>,
    left: Notify,
}

/// The right to take work from a lane.
#[derive(Debug)]
pub(super) struct Turn<'a, W>(&'a Lane<W>);

impl<W> Lane<W> {
    pub(super) fn new(most_tasks: u32) -> Self {
        Self {
            waiting: RefCell::default(),
            tasks: Cell::new(0),
            most_tasks: most_tasks.max(1),
            halted: Cell::new(false),
            left: Notify::new(),
        }
    }

    /// Adds work behind all other.
    pub(super) fn push(&self, work: W) {
        self.waiting.borrow_mut().push_back(work);
    }

    /// Adds work before all that waits.
    pub(super) fn push_front(&self, work: W) {
        self.waiting.borrow_mut().push_front(work);
    }

    /// Changes what waits.
    pub(super) fn each_waiting(&self, change: impl FnMut(&mut W)) {
        self.waiting.borrow_mut().iter_mut().for_each(change);
    }

    /// Forgets all that waits.
    pub(super) fn clear(&self) {
        self.waiting.take();
    }

    /// Whether what comes now need not wait: nothing does, and a turn is free.
    pub(super) fn is_idle(&self) -> bool {
        !self.halted.get() && self.tasks.get() < self.most_tasks && self.waiting.borrow().is_empty()
    }

    /// Takes part in the work, unless enough tasks do.
    pub(super) fn enter(&self) -> Option<Turn<'_, W>> {
        if self.halted.get() || self.tasks.get() == self.most_tasks {
            return None;
        }
        self.tasks.set(self.tasks.get() + 1);
        Some(Turn(self))
    }

    /// From now on nobody takes work.
    pub(super) fn halt(&self) {
        self.halted.set(true);
    }

    /// Resolves when nobody works any more.
    pub(super) async fn left(&self) {
        loop {
            let left = self.left.notified();
            if self.tasks.get() == 0 {
                return;
            }
            left.await;
        }
    }

    /// Ends a halt. Returns how many tasks can take part in the work that waits.
    pub(super) fn resume(&self) -> usize {
        self.halted.set(false);
        self.waiting.borrow().len().min(self.most_tasks as usize)
    }
}

impl<W> Turn<'_, W> {
    /// Whether nothing waits behind the work that was taken.
    pub(super) fn is_last(&self) -> bool {
        self.0.waiting.borrow().is_empty()
    }

    /// The next work. After `None` the turn must be dropped before anything is awaited.
    pub(super) fn next(&self) -> Option<W> {
        if self.0.halted.get() {
            return None;
        }
        self.0.waiting.borrow_mut().pop_front()
    }
}

impl<W> Drop for Turn<'_, W> {
    fn drop(&mut self) {
        self.0.tasks.set(self.0.tasks.get() - 1);
        if self.0.tasks.get() == 0 {
            self.0.left.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_of_one_lets_nobody_else_in_until_its_work_is_done() {
        let lane = Lane::new(1);
        lane.push(1);
        lane.push(2);
        lane.push_front(0);
        let turn = lane.enter().expect("free");
        assert!(lane.enter().is_none());
        assert_eq!([turn.next(), turn.next(), turn.next(), turn.next()], [Some(0), Some(1), Some(2), None]);
        drop(turn);
        assert!(lane.enter().is_some());
    }

    #[test]
    fn a_halted_lane_keeps_its_work_until_it_goes_on() {
        let lane = Lane::new(2);
        lane.push(1);
        let turn = lane.enter().expect("free");
        lane.halt();
        assert!(turn.next().is_none() && lane.enter().is_none());
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let mut left = std::pin::pin!(lane.left());
            assert!(futures::poll!(left.as_mut()).is_pending());
            drop(turn);
            left.await;
        });
        assert_eq!(lane.resume(), 1);
        assert_eq!(lane.enter().expect("free").next(), Some(1));
    }
}
