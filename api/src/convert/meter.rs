//! Meters. Times beyond 584 years, which fit no `u64` of nanoseconds, are cut to it.

use std::time::Duration;

use hvm_types::Meter;

use crate::v1;

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl From<&Meter> for v1::Meter {
    fn from(meter: &Meter) -> Self {
        Self {
            cpu_nanos: nanos(meter.cpu),
            fuel: meter.fuel,
            wall_nanos: nanos(meter.wall),
            throttled_nanos: nanos(meter.throttled),
            memory_byte_seconds: meter.memory_byte_seconds,
            succeeded: meter.succeeded,
            rejected: meter.rejected,
            errored: meter.errored,
            trapped: meter.trapped,
            limited: meter.limited,
            timed_out: meter.timed_out,
            failed: meter.failed,
            refused: meter.refused,
            state_read_bytes: meter.state_read_bytes,
            state_written_bytes: meter.state_written_bytes,
            received_bytes: meter.received_bytes,
            sent_bytes: meter.sent_bytes,
        }
    }
}

impl From<v1::Meter> for Meter {
    fn from(meter: v1::Meter) -> Self {
        Self {
            cpu: Duration::from_nanos(meter.cpu_nanos),
            fuel: meter.fuel,
            wall: Duration::from_nanos(meter.wall_nanos),
            throttled: Duration::from_nanos(meter.throttled_nanos),
            memory_byte_seconds: meter.memory_byte_seconds,
            succeeded: meter.succeeded,
            rejected: meter.rejected,
            errored: meter.errored,
            trapped: meter.trapped,
            limited: meter.limited,
            timed_out: meter.timed_out,
            failed: meter.failed,
            refused: meter.refused,
            state_read_bytes: meter.state_read_bytes,
            state_written_bytes: meter.state_written_bytes,
            received_bytes: meter.received_bytes,
            sent_bytes: meter.sent_bytes,
        }
    }
}
