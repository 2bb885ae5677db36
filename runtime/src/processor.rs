//! What the machine tells of its processors.

use std::num::NonZeroUsize;

use hvm_types::CpuMhz;

/// Clock rate taken where the machine does not tell one.
const ASSUMED_MHZ_PER_PROCESSOR: u64 = 1_000;

/// The processors that this process may use.
pub(crate) fn processors() -> NonZeroUsize {
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

/// The clock rate of all processors together: that of the slowest one, as `/proc/cpuinfo` tells it (proc(5)), times
/// their number. 1,000 MHz each where it tells none.
#[must_use]
pub fn measured_cpu() -> CpuMhz {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let count = u64::try_from(processors().get()).unwrap_or(1);
    let total = mhz_per_processor(&text).unwrap_or(ASSUMED_MHZ_PER_PROCESSOR).saturating_mul(count);
    CpuMhz(u32::try_from(total).unwrap_or(u32::MAX))
}

fn mhz_per_processor(cpuinfo: &str) -> Option<u64> {
    let rates = cpuinfo.lines().filter_map(|line| {
        line.strip_prefix("cpu MHz")?.split_once(':')?.1.trim().split('.').next()?.parse().ok()
    });
    rates.min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_processor_counts_for_all() {
        let text = "processor\t: 0\ncpu MHz\t\t: 2100.123\nprocessor\t: 1\ncpu MHz\t\t: 1900.000\n";
        assert_eq!(mhz_per_processor(text), Some(1900));
        assert_eq!(mhz_per_processor("processor: 0\n"), None);
    }
}
