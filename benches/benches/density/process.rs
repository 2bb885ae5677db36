//! What the kernel says of this process: memory, mappings, processor time.

use std::fs;
use std::time::Duration;

/// The memory of this process at one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Footprint {
    /// Resident bytes, whoever else has them too.
    pub(crate) resident: u64,
    /// Resident bytes that are this process's alone, with the kernel's page tables for it.
    pub(crate) private: u64,
    /// Memory mappings, which `vm.max_map_count` bounds.
    pub(crate) mappings: u64,
}

impl Footprint {
    /// What it is now.
    pub(crate) fn now() -> Self {
        let rollup = read("/proc/self/smaps_rollup");
        let private = field(&rollup, "Private_Clean:") + field(&rollup, "Private_Dirty:");
        let page_tables = field(&read("/proc/self/status"), "VmPTE:");
        Self {
            resident: field(&rollup, "Rss:"),
            private: private + page_tables,
            mappings: read("/proc/self/maps").lines().count() as u64,
        }
    }

    /// What came since then, for each of `count`.
    pub(crate) fn per(self, before: Self, count: u32) -> PerPartition {
        let each = |now: u64, then: u64| now.saturating_sub(then) as f64 / f64::from(count);
        PerPartition {
            resident: each(self.resident, before.resident),
            private: each(self.private, before.private),
            mappings: each(self.mappings, before.mappings),
        }
    }
}

/// A share of a [`Footprint`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct PerPartition {
    pub(crate) resident: f64,
    pub(crate) private: f64,
    pub(crate) mappings: f64,
}

/// Processor time of all threads until now.
pub(crate) fn cpu() -> Duration {
    let stat = read("/proc/self/stat");
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    // utime and stime are the fields 14 and 15 of proc(5), in ticks of a hundredth of a second.
    let ticks: u64 = fields[11..13].iter().map(|ticks| ticks.parse::<u64>().expect("a number")).sum();
    Duration::from_millis(ticks * 10)
}

fn read(path: &str) -> String {
    fs::read_to_string(path).expect("procfs is mounted")
}

/// A line `name: value kB`, in bytes.
fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("the kernel tells it");
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().expect("a number");
    kib << 10
}
