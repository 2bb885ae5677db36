//! Rates and times as cells of a table.

use std::time::{Duration, Instant};

/// Times from asking to the acknowledgement.
#[derive(Debug, Default)]
pub(crate) struct Times(Vec<Duration>);

impl Times {
    pub(crate) fn add(&mut self, time: Duration) {
        self.0.push(time);
    }

    pub(crate) fn merge(all: impl IntoIterator<Item = Self>) -> Self {
        let mut times: Vec<Duration> = all.into_iter().flat_map(|times| times.0).collect();
        times.sort_unstable();
        Self(times)
    }

    fn quantile(&self, percent: usize) -> Duration {
        let at = (self.0.len() * percent / 100).min(self.0.len().saturating_sub(1));
        self.0.get(at).copied().unwrap_or_default()
    }

    /// Rate, median and 99th percentile; the times must be merged.
    pub(crate) fn cells(&self, took: Duration) -> String {
        format!(
            "{} | {} | {}",
            rate(self.0.len(), took),
            millis(self.quantile(50)),
            millis(self.quantile(99))
        )
    }
}

/// Does something again and again for that long, and returns how often and how long it really took.
pub(crate) fn repeat(each: Duration, mut once: impl FnMut()) -> (usize, Duration) {
    let began = Instant::now();
    let mut times = 0;
    while began.elapsed() < each {
        once();
        times += 1;
    }
    (times, began.elapsed())
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
pub(crate) fn rate(count: usize, took: Duration) -> String {
    format!("{:.0} /s", count as f64 / took.as_secs_f64())
}

pub(crate) fn millis(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1e3)
}
