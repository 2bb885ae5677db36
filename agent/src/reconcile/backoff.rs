//! How long a failed step waits before it is tried again.

use std::time::{Duration, Instant};

/// The first wait; each further one is twice as long.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// The longest wait: an operator who mended something does not wait longer than this.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// The failure of a step, and when it is tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// What went wrong and what to do.
    pub(crate) reason: String,
    /// How often in a row, from 1.
    pub(crate) attempts: u32,
    /// When it is tried again.
    pub(crate) retry_at: Instant,
}

impl Failure {
    /// A failure now, after `earlier` ones of the same step in a row.
    pub(crate) fn again(reason: String, earlier: u32, now: Instant) -> Self {
        let wait = FIRST_WAIT.saturating_mul(1 << earlier.min(5)).min(LONGEST_WAIT);
        Self { reason, attempts: earlier.saturating_add(1), retry_at: now + wait }
    }

    /// Whether it is time to try again.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        now >= self.retry_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest() {
        let now = Instant::now();
        let waits: Vec<u64> =
            (0..8).map(|n| (Failure::again(String::new(), n, now).retry_at - now).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30, 30]);
        assert_eq!(Failure::again(String::new(), u32::MAX, now).attempts, u32::MAX);
    }
}
