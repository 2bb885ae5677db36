//! A guest's turn on its worker: how long it may run before others have theirs.

use std::time::{Duration, Instant};

use crate::worker::{SHORT_SLICES, give_way};

/// Longest time that a guest runs before it gives way.
pub(crate) const TURN: Duration = Duration::from_millis(1);

/// The same for a guest that has used up its turns in this request: others wait for it less long, and giving way more
/// often costs it about one part in a hundred.
const LONG_RUNNING_TURN: Duration = Duration::from_micros(200);

/// The running turn of one instance.
#[derive(Debug)]
pub(crate) struct Turn {
    began: Instant,
    /// Turns that the request has used up.
    used: u32,
}

impl Turn {
    /// A guest begins to run: now, as the caller has read the clock.
    pub(crate) const fn begin(now: Instant) -> Self {
        Self { began: now, used: 0 }
    }

    /// A guest has counted a budget of work. Where its turn is over, others have theirs first.
    pub(crate) async fn tick(&mut self) {
        let long = if self.used < SHORT_SLICES { TURN } else { LONG_RUNNING_TURN };
        if self.began.elapsed() >= long {
            self.used = self.used.saturating_add(1);
            give_way(self.used).await;
            self.began = Instant::now();
        }
    }
}
