//! What was used: the counters of one partition over some time.

use std::ops::AddAssign;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How a request ended, for counting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RequestOutcome {
    /// Answered with a status below 400.
    Succeeded,
    /// Answered by the guest with a status of 400 or above.
    Rejected,
    /// Ended by a trap, a limit, the deadline or a failed commit.
    Failed,
    /// Refused before the guest saw it: full mailbox, too large, no space.
    Refused,
}

/// What a partition used. Adding two meters adds what they count.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meter {
    /// Processor time in the guest and in host functions it called.
    pub cpu: Duration,
    /// Wall time during which a request was in the guest.
    pub wall: Duration,
    /// Memory held, in byte-seconds.
    pub memory_byte_seconds: u64,
    /// Requests by outcome.
    pub succeeded: u64,
    /// See [`RequestOutcome::Rejected`].
    pub rejected: u64,
    /// See [`RequestOutcome::Failed`].
    pub failed: u64,
    /// See [`RequestOutcome::Refused`].
    pub refused: u64,
    /// Bytes of state read by the guest.
    pub state_read_bytes: u64,
    /// Bytes of state committed.
    pub state_written_bytes: u64,
    /// Bytes of request bodies, and those that its own calls out received from the network.
    pub received_bytes: u64,
    /// Bytes of response bodies, and those that its own calls out sent.
    pub sent_bytes: u64,
}

impl Meter {
    /// Counts one request.
    pub fn count(&mut self, outcome: RequestOutcome) {
        *match outcome {
            RequestOutcome::Succeeded => &mut self.succeeded,
            RequestOutcome::Rejected => &mut self.rejected,
            RequestOutcome::Failed => &mut self.failed,
            RequestOutcome::Refused => &mut self.refused,
        } += 1;
    }

    /// What it counts more than `earlier`; zero where it counts less.
    #[must_use]
    pub const fn saturating_sub(&self, earlier: &Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(earlier.cpu),
            wall: self.wall.saturating_sub(earlier.wall),
            memory_byte_seconds: self.memory_byte_seconds.saturating_sub(earlier.memory_byte_seconds),
            succeeded: self.succeeded.saturating_sub(earlier.succeeded),
            rejected: self.rejected.saturating_sub(earlier.rejected),
            failed: self.failed.saturating_sub(earlier.failed),
            refused: self.refused.saturating_sub(earlier.refused),
            state_read_bytes: self.state_read_bytes.saturating_sub(earlier.state_read_bytes),
            state_written_bytes: self.state_written_bytes.saturating_sub(earlier.state_written_bytes),
            received_bytes: self.received_bytes.saturating_sub(earlier.received_bytes),
            sent_bytes: self.sent_bytes.saturating_sub(earlier.sent_bytes),
        }
    }

    /// All requests.
    #[must_use]
    pub const fn requests(&self) -> u64 {
        self.succeeded + self.rejected + self.failed + self.refused
    }
}

impl AddAssign<&Self> for Meter {
    fn add_assign(&mut self, other: &Self) {
        self.cpu += other.cpu;
        self.wall += other.wall;
        self.memory_byte_seconds += other.memory_byte_seconds;
        self.succeeded += other.succeeded;
        self.rejected += other.rejected;
        self.failed += other.failed;
        self.refused += other.refused;
        self.state_read_bytes += other.state_read_bytes;
        self.state_written_bytes += other.state_written_bytes;
        self.received_bytes += other.received_bytes;
        self.sent_bytes += other.sent_bytes;
    }
}
