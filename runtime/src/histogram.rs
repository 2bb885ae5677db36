//! How long something took, in a fixed number of buckets that anyone may add to and read at any time.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Upper ends of the buckets; a last one takes what is longer. Each is two to two and a half times the one before, from
/// a query in memory to the longest compilation.
const BOUNDS: [Duration; 20] = [
    Duration::from_micros(10),
    Duration::from_micros(25),
    Duration::from_micros(50),
    Duration::from_micros(100),
    Duration::from_micros(250),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_micros(2_500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_millis(2_500),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(30),
];

/// Counts durations.
#[derive(Debug, Default)]
pub(crate) struct DurationHistogram {
    counts: [AtomicU64; BOUNDS.len() + 1],
    sum_nanos: AtomicU64,
}

/// What a histogram counted until now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Durations {
    /// For each bucket its upper end, `None` for the last, and how many durations lie in it and in none before it.
    pub buckets: Vec<(Option<Duration>, u64)>,
    /// All durations together.
    pub sum: Duration,
}

impl DurationHistogram {
    pub(crate) fn add(&self, duration: Duration) {
        let bucket = BOUNDS.partition_point(|bound| *bound < duration);
        self.counts[bucket].fetch_add(1, Relaxed);
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.sum_nanos.fetch_add(nanos, Relaxed);
    }

    pub(crate) fn read(&self) -> Durations {
        let bounds = BOUNDS.into_iter().map(Some).chain([None]);
        let counts = self.counts.iter().map(|count| count.load(Relaxed));
        Durations {
            buckets: bounds.zip(counts).collect(),
            sum: Duration::from_nanos(self.sum_nanos.load(Relaxed)),
        }
    }
}

impl Durations {
    /// How many durations it counts.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|(_, count)| count).sum()
    }

    /// Adds what another one counts, whose buckets are the same.
    pub fn merge(&mut self, other: &Self) {
        if self.buckets.is_empty() {
            self.buckets.clone_from(&other.buckets);
        } else {
            for (bucket, more) in self.buckets.iter_mut().zip(&other.buckets) {
                bucket.1 += more.1;
            }
        }
        self.sum += other.sum;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_lies_in_the_first_bucket_that_reaches_to_it() {
        let histogram = DurationHistogram::default();
        let millis = Duration::from_millis;
        [Duration::ZERO, millis(1), millis(2), millis(31_000)]
            .into_iter()
            .for_each(|duration| histogram.add(duration));
        let mut read = histogram.read();
        let at = |read: &Durations, bound| {
            read.buckets.iter().find(|(end, _)| *end == bound).map(|(_, count)| *count)
        };
        assert_eq!(at(&read, Some(Duration::from_micros(10))), Some(1));
        assert_eq!(at(&read, Some(millis(1))), Some(1), "a bound belongs to its bucket");
        assert_eq!(at(&read, Some(Duration::from_micros(2_500))), Some(1));
        assert_eq!(at(&read, None), Some(1));
        assert_eq!((read.count(), read.sum), (4, millis(31_003)));
        read.merge(&histogram.read());
        assert_eq!((read.count(), at(&read, None)), (8, Some(2)));
    }
}
