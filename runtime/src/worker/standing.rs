//! What a partition has used of its worker lately, which decides whether others go before it. It is no quota: a
//! partition that is alone has all of the processor.
//!
//! A debt grows by what is used and shrinks by a part of the time that passes. So whoever uses less than that part
//! has none to speak of, and goes before those who use more.

use std::cell::Cell;
use std::collections::VecDeque;
use std::task::Waker;
use std::time::{Duration, Instant};

/// A partition whose debt is larger waits until all others that are ready had their turn.
const LIGHT_DEBT: Duration = Duration::from_millis(2);
/// A debt does not grow beyond this: so what was used is forgotten after [`FORGIVEN_PART`] times this.
const MOST_DEBT: Duration = Duration::from_millis(100);
/// One part in so many of the time that passes is taken from the debt.
const FORGIVEN_PART: u32 = 4;

/// A partition's standing among those of its worker.
#[derive(Debug)]
pub(super) struct Standing {
    debt: Cell<Duration>,
    /// Until when the passing of time was taken from the debt.
    as_of: Cell<Instant>,
    /// Guests that wait for the partition's turn, no more than it has requests that run.
    pub(super) waiting: std::cell::RefCell<VecDeque<(u64, Waker)>>,
    /// Whether the partition stands in the worker's queue.
    pub(super) is_queued: Cell<bool>,
}

impl Standing {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            debt: Cell::default(),
            as_of: Cell::new(now),
            waiting: std::cell::RefCell::default(),
            is_queued: Cell::new(false),
        }
    }

    /// What is left of what was used.
    pub(super) fn debt(&self, now: Instant) -> Duration {
        self.debt.get().saturating_sub(now.saturating_duration_since(self.as_of.get()) / FORGIVEN_PART)
    }

    /// Whether others go before it.
    pub(super) fn is_heavy(&self, now: Instant) -> bool {
        self.debt.get() > LIGHT_DEBT && self.debt(now) > LIGHT_DEBT
    }

    /// Adds what was used until now.
    pub(super) fn add(&self, used: Duration, now: Instant) {
        self.debt.set((self.debt(now) + used).min(MOST_DEBT));
        self.as_of.set(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Uses `used` of every millisecond.
    fn use_for(standing: &Standing, mut now: Instant, each: Duration, times: u32) -> Instant {
        for _ in 0..times {
            now += MS;
            standing.add(each, now);
        }
        now
    }

    #[test]
    fn who_uses_a_fifth_stays_light_and_who_uses_all_does_not() {
        let began = Instant::now();
        let (light, heavy) = (Standing::new(began), Standing::new(began));
        let now = use_for(&light, began, MS / 5, 10_000);
        assert!(!light.is_heavy(now), "{:?}", light.debt(now));
        let now = use_for(&heavy, began, MS, 4);
        assert!(heavy.is_heavy(now), "{:?}", heavy.debt(now));
    }

    #[test]
    fn what_was_used_is_forgotten_in_less_than_half_a_second() {
        let standing = Standing::new(Instant::now());
        let now = use_for(&standing, Instant::now(), MS, 60_000);
        assert_eq!(standing.debt(now), MOST_DEBT);
        assert!(standing.is_heavy(now + 300 * MS));
        assert!(!standing.is_heavy(now + 400 * MS));
    }
}
