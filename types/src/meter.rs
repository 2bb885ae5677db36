//! What was used: the counters of one partition over some time.

use std::ops::AddAssign;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How a request ended, for counting. Each request counts once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RequestOutcome {
    /// Answered with a status below 400.
    Succeeded,
    /// Answered by the guest with a status of 400 to 499.
    Rejected,
    /// Answered by the guest with a status of 500 or above, with an error instead of an answer, or not to the end.
    Errored,
    /// Ended by a trap.
    Trapped,
    /// Ended by a limit: memory, stack, host resources, the length of the answer, durable state.
    Limited,
    /// Ended by its deadline, or by an asker that did not read the answer.
    TimedOut,
    /// Failed by the host: a commit, its disk or its memory.
    Failed,
    /// Refused before the guest saw it: full mailbox, too large, not ready.
    Refused,
}

impl RequestOutcome {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Self; 8] = [
        Self::Succeeded,
        Self::Rejected,
        Self::Errored,
        Self::Trapped,
        Self::Limited,
        Self::TimedOut,
        Self::Failed,
        Self::Refused,
    ];

    /// How an answer with this HTTP status counts.
    #[must_use]
    pub const fn of_status(status: u16) -> Self {
        match status {
            0..400 => Self::Succeeded,
            400..500 => Self::Rejected,
            _ => Self::Errored,
        }
    }

    /// Its word in tables, labels and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Rejected => "rejected",
            Self::Errored => "errored",
            Self::Trapped => "trapped",
            Self::Limited => "limited",
            Self::TimedOut => "timed_out",
            Self::Failed => "failed",
            Self::Refused => "refused",
        }
    }

    /// Whether the guest began the request and nobody got a good answer of it.
    #[must_use]
    pub const fn is_failure(self) -> bool {
        !matches!(self, Self::Succeeded | Self::Rejected | Self::Refused)
    }
}

/// Declares the counters once, with the arithmetic on all of them.
macro_rules! meter {
    ($($(#[$doc:meta])* $counter:ident: $of:ty,)*) => {
        /// What a partition used. Adding two meters adds what they count, up to what a counter can hold.
        #[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
        pub struct Meter {
            $($(#[$doc])* pub $counter: $of,)*
        }

        impl Meter {
            /// What it counts more than `earlier`; zero where it counts less.
            #[must_use]
            pub const fn saturating_sub(&self, earlier: &Self) -> Self {
                Self { $($counter: self.$counter.saturating_sub(earlier.$counter),)* }
            }
        }

        impl AddAssign<&Self> for Meter {
            fn add_assign(&mut self, other: &Self) {
                $(self.$counter = self.$counter.saturating_add(other.$counter);)*
            }
        }
    };
}

meter! {
    /// Processor time in the guest and in what the host did for it.
    cpu: Duration,
    /// Fuel, where the deployment asks for deterministic metering; zero elsewhere.
    fuel: u64,
    /// Wall time of requests in the guest, with what the guest itself awaited (a sleep, a call out, a body), and without
    /// what the host let it wait for: its share of the processor, its turn, a place in the pool.
    wall: Duration,
    /// Beside that, time during which a request waited because the partition had used up its share of the processor.
    throttled: Duration,
    /// Memory held, in byte-seconds.
    memory_byte_seconds: u64,
    /// Requests by outcome: see [`RequestOutcome::Succeeded`].
    succeeded: u64,
    /// See [`RequestOutcome::Rejected`].
    rejected: u64,
    /// See [`RequestOutcome::Errored`].
    errored: u64,
    /// See [`RequestOutcome::Trapped`].
    trapped: u64,
    /// See [`RequestOutcome::Limited`].
    limited: u64,
    /// See [`RequestOutcome::TimedOut`].
    timed_out: u64,
    /// See [`RequestOutcome::Failed`].
    failed: u64,
    /// See [`RequestOutcome::Refused`].
    refused: u64,
    /// Bytes of state read by the guest.
    state_read_bytes: u64,
    /// Bytes of state committed.
    state_written_bytes: u64,
    /// Bytes of request bodies, and those that its own calls out received from the network.
    received_bytes: u64,
    /// Bytes of response bodies, and those that its own calls out sent.
    sent_bytes: u64,
}

impl Meter {
    /// The requests that ended so.
    #[must_use]
    pub const fn requests_of(&self, outcome: RequestOutcome) -> u64 {
        match outcome {
            RequestOutcome::Succeeded => self.succeeded,
            RequestOutcome::Rejected => self.rejected,
            RequestOutcome::Errored => self.errored,
            RequestOutcome::Trapped => self.trapped,
            RequestOutcome::Limited => self.limited,
            RequestOutcome::TimedOut => self.timed_out,
            RequestOutcome::Failed => self.failed,
            RequestOutcome::Refused => self.refused,
        }
    }

    /// All requests.
    #[must_use]
    pub fn requests(&self) -> u64 {
        RequestOutcome::ALL.into_iter().map(|outcome| self.requests_of(outcome)).sum()
    }

    /// The requests that the guest began and nobody got a good answer of.
    #[must_use]
    pub fn failures(&self) -> u64 {
        let failures = RequestOutcome::ALL.into_iter().filter(|outcome| outcome.is_failure());
        failures.map(|outcome| self.requests_of(outcome)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_counts_once_and_the_guests_answer_by_its_status() {
        let meter =
            Meter { succeeded: 1, rejected: 2, trapped: 4, timed_out: 8, refused: 16, ..Meter::default() };
        assert_eq!((meter.requests(), meter.failures()), (31, 12));
        let of = [200, 399, 404, 500, 599].map(RequestOutcome::of_status);
        use RequestOutcome::{Errored, Rejected, Succeeded};
        assert_eq!(of, [Succeeded, Succeeded, Rejected, Errored, Errored]);
    }

    #[test]
    fn a_difference_and_what_it_was_taken_from_sum_to_the_whole() {
        let earlier =
            Meter { cpu: Duration::from_millis(3), throttled: Duration::from_millis(1), ..Meter::default() };
        let mut now = earlier.clone();
        now += &Meter { cpu: Duration::from_millis(4), fuel: 7, sent_bytes: 2, ..Meter::default() };
        let mut sum = now.saturating_sub(&earlier);
        sum += &earlier;
        assert_eq!(sum, now);
        assert_eq!(earlier.saturating_sub(&now), Meter::default());
    }
}
