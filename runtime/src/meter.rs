//! The running meter of one partition: counters that its worker writes and that anyone reads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use hvm_types::{Meter, RequestOutcome};

/// Counters of one partition. Only its worker adds to most of them, so the order in which another thread sees
/// them does not matter.
#[derive(Debug, Default)]
pub(crate) struct MeterCell {
    cpu_nanos: AtomicU64,
    fuel: AtomicU64,
    wall_nanos: AtomicU64,
    throttled_nanos: AtomicU64,
    memory_byte_seconds: AtomicU64,
    succeeded: AtomicU64,
    rejected: AtomicU64,
    errored: AtomicU64,
    trapped: AtomicU64,
    limited: AtomicU64,
    timed_out: AtomicU64,
    failed: AtomicU64,
    refused: AtomicU64,
    state_read_bytes: AtomicU64,
    state_written_bytes: AtomicU64,
    received_bytes: AtomicU64,
    sent_bytes: AtomicU64,
    /// Whether anything was added since the last [`take_changed`](Self::take_changed): most partitions of a host
    /// are idle, and whoever keeps the books passes them by.
    changed: AtomicBool,
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl MeterCell {
    /// A meter that goes on from what was used before.
    pub(crate) fn starting_at(meter: &Meter) -> Arc<Self> {
        Arc::new(Self {
            cpu_nanos: nanos(meter.cpu).into(),
            fuel: meter.fuel.into(),
            wall_nanos: nanos(meter.wall).into(),
            throttled_nanos: nanos(meter.throttled).into(),
            memory_byte_seconds: meter.memory_byte_seconds.into(),
            succeeded: meter.succeeded.into(),
            rejected: meter.rejected.into(),
            errored: meter.errored.into(),
            trapped: meter.trapped.into(),
            limited: meter.limited.into(),
            timed_out: meter.timed_out.into(),
            failed: meter.failed.into(),
            refused: meter.refused.into(),
            state_read_bytes: meter.state_read_bytes.into(),
            state_written_bytes: meter.state_written_bytes.into(),
            received_bytes: meter.received_bytes.into(),
            sent_bytes: meter.sent_bytes.into(),
            // Whoever keeps the books sees each partition once, used or not.
            changed: AtomicBool::new(true),
        })
    }

    /// What was counted until now.
    pub(crate) fn read(&self) -> Meter {
        Meter {
            cpu: Duration::from_nanos(self.cpu_nanos.load(Relaxed)),
            fuel: self.fuel.load(Relaxed),
            wall: Duration::from_nanos(self.wall_nanos.load(Relaxed)),
            throttled: Duration::from_nanos(self.throttled_nanos.load(Relaxed)),
            memory_byte_seconds: self.memory_byte_seconds.load(Relaxed),
            succeeded: self.succeeded.load(Relaxed),
            rejected: self.rejected.load(Relaxed),
            errored: self.errored.load(Relaxed),
            trapped: self.trapped.load(Relaxed),
            limited: self.limited.load(Relaxed),
            timed_out: self.timed_out.load(Relaxed),
            failed: self.failed.load(Relaxed),
            refused: self.refused.load(Relaxed),
            state_read_bytes: self.state_read_bytes.load(Relaxed),
            state_written_bytes: self.state_written_bytes.load(Relaxed),
            received_bytes: self.received_bytes.load(Relaxed),
            sent_bytes: self.sent_bytes.load(Relaxed),
        }
    }

    /// Whether anything was added since the last call.
    pub(crate) fn take_changed(&self) -> bool {
        // Before the counters are read: what is added meanwhile is taken note of for the next time.
        self.changed.swap(false, Relaxed)
    }

    fn add(&self, counter: &AtomicU64, count: u64) {
        counter.fetch_add(count, Relaxed);
        if !self.changed.load(Relaxed) {
            self.changed.store(true, Relaxed);
        }
    }

    pub(crate) fn add_cpu(&self, time: Duration) {
        self.add(&self.cpu_nanos, nanos(time));
    }

    pub(crate) fn add_fuel(&self, fuel: u64) {
        // A guest can name a length that it is charged for, so its sum has no end.
        let _always = self.fuel.try_update(Relaxed, Relaxed, |sum| Some(sum.saturating_add(fuel)));
        self.add(&self.fuel, 0);
    }

    pub(crate) fn add_wall(&self, time: Duration) {
        self.add(&self.wall_nanos, nanos(time));
    }

    pub(crate) fn add_throttled(&self, time: Duration) {
        self.add(&self.throttled_nanos, nanos(time));
    }

    pub(crate) fn add_memory_byte_seconds(&self, byte_seconds: u64) {
        self.add(&self.memory_byte_seconds, byte_seconds);
    }

    pub(crate) fn count(&self, outcome: RequestOutcome) {
        let counter = match outcome {
            RequestOutcome::Succeeded => &self.succeeded,
            RequestOutcome::Rejected => &self.rejected,
            RequestOutcome::Errored => &self.errored,
            RequestOutcome::Trapped => &self.trapped,
            RequestOutcome::Limited => &self.limited,
            RequestOutcome::TimedOut => &self.timed_out,
            RequestOutcome::Failed => &self.failed,
            RequestOutcome::Refused => &self.refused,
        };
        self.add(counter, 1);
    }

    pub(crate) fn count_state(&self, read_bytes: u64, written_bytes: u64) {
        self.add(&self.state_read_bytes, read_bytes);
        self.add(&self.state_written_bytes, written_bytes);
    }

    pub(crate) fn count_received(&self, bytes: usize) {
        self.add(&self.received_bytes, bytes as u64);
    }

    pub(crate) fn count_sent(&self, bytes: usize) {
        self.add(&self.sent_bytes, bytes as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_meter_goes_on_from_what_was_used_before() {
        let before = Meter { cpu: Duration::from_secs(3), failed: 1, sent_bytes: 7, ..Meter::default() };
        let meter = MeterCell::starting_at(&before);
        assert_eq!(meter.read(), before);
        meter.count_sent(5);
        assert_eq!(meter.read().saturating_sub(&before), Meter { sent_bytes: 5, ..Meter::default() });
    }

    #[test]
    fn a_meter_that_nobody_added_to_says_so() {
        let meter = MeterCell::default();
        assert!(!meter.take_changed());
        meter.count(RequestOutcome::Refused);
        assert!(meter.take_changed());
        assert!(!meter.take_changed());
    }
}
