//! What the hypervisor took from this machine while something was measured: times to answer tell nothing of a server
//! that was not let run.

use std::fs;

/// Processor time of the whole machine until some moment, in ticks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stolen {
    stolen: u64,
    all: u64,
}

impl Stolen {
    /// Until now; nothing where the system does not tell.
    #[must_use]
    pub fn now() -> Self {
        fs::read_to_string("/proc/stat").ok().and_then(|stat| Self::parse(&stat)).unwrap_or_default()
    }

    /// The share of the machine's processor time that others got since then, from 0 to 1.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "ticks are far below 2^52")]
    pub fn share_since(self) -> f64 {
        let now = Self::now();
        let all = now.all.saturating_sub(self.all).max(1);
        now.stolen.saturating_sub(self.stolen) as f64 / all as f64
    }

    /// The first line of `/proc/stat` (proc(5)): user, nice, system, idle, iowait, irq, softirq, steal, and guests, which
    /// are counted in user already.
    fn parse(stat: &str) -> Option<Self> {
        let numbers = stat.lines().next()?.strip_prefix("cpu ")?.split_ascii_whitespace();
        let numbers: Vec<u64> = numbers.take(8).map(str::parse).collect::<Result<_, _>>().ok()?;
        Some(Self { stolen: *numbers.get(7)?, all: numbers.iter().sum() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steal_is_the_eighth_number_of_the_whole_machine() {
        let stat = "cpu  10 1 20 1000 3 0 4 7 5 5\ncpu0 1 1 1 1 1 1 1 1 1 1\n";
        assert_eq!(Stolen::parse(stat), Some(Stolen { stolen: 7, all: 1045 }));
        assert_eq!(Stolen::parse("cpu 1 2 3\n"), None);
    }
}
