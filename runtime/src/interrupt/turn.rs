//! A guest's turn on its worker: how long it may run before others have theirs.

use std::time::{Duration, Instant};

/// Longest time that a guest runs before it gives way.
pub(crate) const TURN: Duration = Duration::from_millis(1);

/// The running turn of one instance.
#[derive(Debug)]
pub(crate) struct Turn {
    began: Instant,
}

impl Turn {
    /// A guest begins to run: now, as the caller has read the clock.
    pub(crate) const fn begin(now: Instant) -> Self {
        Self { began: now }
    }

    /// A guest has counted a budget of work. Where its turn is over, others have theirs first.
    pub(crate) async fn tick(&mut self) {
        if self.began.elapsed() >= TURN {
            // Lets the worker look at its sockets and timers too; a plain yield would put the guest back at the end
            // of the same queue.
            tokio::task::yield_now().await;
            self.began = Instant::now();
        }
    }
}
