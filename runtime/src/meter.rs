//! The running meter of one partition: counters that its worker writes and that anyone reads.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use hvm_types::{Meter, RequestOutcome};

/// Counters of one partition. Only its worker adds to most of them, so the order in which another thread sees
/// them does not matter.
#[derive(Debug, Default)]
pub(crate) struct MeterCell {
    cpu_nanos: AtomicU64,
    wall_nanos: AtomicU64,
    memory_byte_seconds: AtomicU64,
    succeeded: AtomicU64,
    rejected: AtomicU64,
    failed: AtomicU64,
    refused: AtomicU64,
    state_read_bytes: AtomicU64,
    state_written_bytes: AtomicU64,
    received_bytes: AtomicU64,
    sent_bytes: AtomicU64,
    /// Time on the worker since the slice began, not yet turned into processor time.
    slice_nanos: AtomicU64,
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl MeterCell {
    /// A meter that goes on from what was used before.
    pub(crate) fn starting_at(meter: &Meter) -> Arc<Self> {
        Arc::new(Self {
            cpu_nanos: nanos(meter.cpu).into(),
            wall_nanos: nanos(meter.wall).into(),
            memory_byte_seconds: meter.memory_byte_seconds.into(),
            succeeded: meter.succeeded.into(),
            rejected: meter.rejected.into(),
            failed: meter.failed.into(),
            refused: meter.refused.into(),
            state_read_bytes: meter.state_read_bytes.into(),
            state_written_bytes: meter.state_written_bytes.into(),
            received_bytes: meter.received_bytes.into(),
            sent_bytes: meter.sent_bytes.into(),
            slice_nanos: AtomicU64::new(0),
        })
    }

    /// What was counted until now.
    pub(crate) fn read(&self) -> Meter {
        Meter {
            cpu: Duration::from_nanos(self.cpu_nanos.load(Relaxed)),
            wall: Duration::from_nanos(self.wall_nanos.load(Relaxed)),
            memory_byte_seconds: self.memory_byte_seconds.load(Relaxed),
            succeeded: self.succeeded.load(Relaxed),
            rejected: self.rejected.load(Relaxed),
            failed: self.failed.load(Relaxed),
            refused: self.refused.load(Relaxed),
            state_read_bytes: self.state_read_bytes.load(Relaxed),
            state_written_bytes: self.state_written_bytes.load(Relaxed),
            received_bytes: self.received_bytes.load(Relaxed),
            sent_bytes: self.sent_bytes.load(Relaxed),
        }
    }

    /// Adds time on the worker to the slice. True where it is the first of the slice.
    pub(crate) fn add_to_slice(&self, time: Duration) -> bool {
        self.slice_nanos.fetch_add(nanos(time), Relaxed) == 0
    }

    /// Ends the slice: of the time on the worker, `numerator` of `denominator` was processor time.
    pub(crate) fn settle_slice(&self, numerator: u128, denominator: u128) {
        let slice = u128::from(self.slice_nanos.swap(0, Relaxed));
        let cpu = (slice * numerator).checked_div(denominator).unwrap_or(slice);
        self.cpu_nanos.fetch_add(u64::try_from(cpu).unwrap_or(u64::MAX), Relaxed);
    }

    pub(crate) fn add_wall(&self, time: Duration) {
        self.wall_nanos.fetch_add(nanos(time), Relaxed);
    }

    pub(crate) fn add_memory_byte_seconds(&self, byte_seconds: u64) {
        self.memory_byte_seconds.fetch_add(byte_seconds, Relaxed);
    }

    pub(crate) fn count(&self, outcome: RequestOutcome) {
        match outcome {
            RequestOutcome::Succeeded => &self.succeeded,
            RequestOutcome::Rejected => &self.rejected,
            RequestOutcome::Failed => &self.failed,
            RequestOutcome::Refused => &self.refused,
        }
        .fetch_add(1, Relaxed);
    }

    pub(crate) fn count_state(&self, read_bytes: u64, written_bytes: u64) {
        self.state_read_bytes.fetch_add(read_bytes, Relaxed);
        self.state_written_bytes.fetch_add(written_bytes, Relaxed);
    }

    pub(crate) fn count_received(&self, bytes: usize) {
        self.received_bytes.fetch_add(bytes as u64, Relaxed);
    }

    pub(crate) fn count_sent(&self, bytes: usize) {
        self.sent_bytes.fetch_add(bytes as u64, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_becomes_processor_time_by_the_workers_share() {
        let meter = MeterCell::default();
        assert!(meter.add_to_slice(Duration::from_millis(60)));
        assert!(!meter.add_to_slice(Duration::from_millis(40)));
        meter.settle_slice(1, 2);
        assert_eq!(meter.read().cpu, Duration::from_millis(50));
        assert!(meter.add_to_slice(Duration::from_millis(1)), "the slice did not start anew");
    }

    #[test]
    fn a_meter_goes_on_from_what_was_used_before() {
        let mut before = Meter { cpu: Duration::from_secs(3), sent_bytes: 7, ..Meter::default() };
        before.count(RequestOutcome::Failed);
        let meter = MeterCell::starting_at(&before);
        assert_eq!(meter.read(), before);
        meter.count_sent(5);
        assert_eq!(meter.read().saturating_sub(&before), Meter { sent_bytes: 5, ..Meter::default() });
    }
}
