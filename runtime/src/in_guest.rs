//! How long a request was in its guest: from when its guest may begin to its end, without what the host let it wait for
//! on the way: its partition's share of the processor, its turn, a place in the pool. What a guest awaits by itself (a
//! sleep, a call out, the next part of a body) is time in it.
//!
//! Whoever writes brings the time along, so that a request that never waits reads no clock for this.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::task::Poll;
use std::time::{Duration, Instant};

/// The time of one request in its guest. Its worker writes it; anyone may read it.
#[derive(Debug)]
pub(crate) struct InGuest {
    /// What the times below count from.
    zero: Instant,
    /// Until it was held up last.
    sum_nanos: AtomicU64,
    /// Since when it is in the guest, unless something holds it up.
    since_nanos: AtomicU64,
    /// How many things hold it up: while it waits for a place, it can be refused its turn as well.
    held_up: AtomicU32,
}

impl InGuest {
    /// Counts from `zero` on, until it is told that the guest [`begins`](Self::begins) later.
    pub(crate) const fn new(zero: Instant) -> Self {
        let (sum_nanos, since_nanos, held_up) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU32::new(0));
        Self { zero, sum_nanos, since_nanos, held_up }
    }

    fn nanos(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.zero).as_nanos()).unwrap_or(u64::MAX)
    }

    fn since_last(&self, now: Instant) -> u64 {
        self.nanos(now).saturating_sub(self.since_nanos.load(Relaxed))
    }

    /// The guest may begin.
    pub(crate) fn begins(&self, now: Instant) {
        self.since_nanos.store(self.nanos(now), Relaxed);
    }

    /// The host lets it wait, until it [`goes_on`](Self::goes_on).
    pub(crate) fn waits(&self, now: Instant) {
        let held_up = self.held_up.load(Relaxed);
        if held_up == 0 {
            self.sum_nanos.store(self.sum_nanos.load(Relaxed) + self.since_last(now), Relaxed);
        }
        self.held_up.store(held_up + 1, Relaxed);
    }

    /// The host lets it wait no longer for what it began to wait for last.
    pub(crate) fn goes_on(&self, now: Instant) {
        let held_up = self.held_up.load(Relaxed).saturating_sub(1);
        self.held_up.store(held_up, Relaxed);
        if held_up == 0 {
            self.begins(now);
        }
    }

    /// The time until now.
    pub(crate) fn time(&self, now: Instant) -> Duration {
        let running = if self.held_up.load(Relaxed) == 0 { self.since_last(now) } else { 0 };
        Duration::from_nanos(self.sum_nanos.load(Relaxed).saturating_add(running))
    }

    /// Waits for something of the host. The clock is read only where it is not there at once.
    pub(crate) async fn waits_for<F: Future>(&self, what: F) -> F::Output {
        let mut what = pin!(what);
        let mut waits = false;
        poll_fn(|context| {
            let result = what.as_mut().poll(context);
            match &result {
                Poll::Pending if !waits => {
                    waits = true;
                    self.waits(Instant::now());
                }
                Poll::Ready(_) if waits => self.goes_on(Instant::now()),
                _ => {}
            }
            result
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn waits_are_left_out_once_however_many_there_are_at_a_time() {
        let zero = Instant::now();
        let at = |millis: u32| zero + MS * millis;
        let request = InGuest::new(zero);
        request.begins(at(10));
        assert_eq!(request.time(at(12)), 2 * MS);
        request.waits(at(12));
        assert_eq!(request.time(at(20)), 2 * MS);
        request.waits(at(20));
        request.goes_on(at(30));
        assert_eq!(request.time(at(31)), 2 * MS, "it waits for something else still");
        request.goes_on(at(40));
        assert_eq!(request.time(at(43)), 5 * MS);
    }

    #[tokio::test]
    async fn what_is_there_at_once_is_no_wait_and_what_is_broken_off_stays_one() {
        let zero = Instant::now();
        let request = InGuest::new(zero);
        assert_eq!(request.waits_for(async { 7 }).await, 7);
        assert_eq!(request.time(zero + MS), MS);
        let mut waits = Box::pin(request.waits_for(std::future::pending::<()>()));
        assert!(futures::poll!(waits.as_mut()).is_pending());
        drop(waits);
        let until_then = request.time(Instant::now());
        assert_eq!(request.time(Instant::now() + 1_000 * MS), until_then);
    }
}
