//! What there is to say at one moment, read from the HVM, the books and the system.

use std::collections::BTreeMap;
use std::time::Duration;

use hvm_runtime::{Durations, HostObservation, Hvm, PartitionStatus};
use hvm_types::{Meter, ReplicaId};
use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

use super::scope::{RowLabels, Scope};
use crate::usage::{UsageLedger, UsageReport};

/// Everything that one answer says.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) process: Process,
    pub(super) host: HostObservation,
    pub(super) host_cpu: Duration,
    /// Partitions and stateless replicas by the word of their state.
    pub(super) states: BTreeMap<&'static str, u32>,
    pub(super) rows: BTreeMap<RowLabels, Row>,
    pub(super) latencies: BTreeMap<RowLabels, Durations>,
}

/// One row: a partition, or several together.
#[derive(Debug, Default)]
pub(super) struct Row {
    pub(super) meter: Meter,
    pub(super) stored_bytes: u64,
    pub(super) memory_bytes: u64,
    pub(super) mailbox: u32,
    pub(super) instances: u32,
    pub(super) throttled: u32,
}

/// This process as the system sees it.
#[derive(Debug, Default)]
pub(super) struct Process {
    pub(super) cpu: Duration,
    pub(super) resident_bytes: Option<u64>,
    pub(super) open_fds: Option<u64>,
    pub(super) max_fds: Option<u64>,
}

impl Snapshot {
    pub(super) fn take(hvm: &Hvm, usage: &UsageLedger) -> Self {
        let statuses = hvm.observe();
        let report = usage.report(None);
        let mut states = BTreeMap::new();
        for status in &statuses {
            *states.entry(status.state.word()).or_default() += 1;
        }
        Self {
            process: Process::observe(),
            host: hvm.observe_host(),
            host_cpu: report.sum.host_cpu,
            states,
            rows: rows(&statuses, &report),
            latencies: latencies(&statuses, hvm),
        }
    }
}

/// One row each, or fewer where there would be too many. What is not open any more has none.
fn rows(statuses: &[PartitionStatus], report: &UsageReport) -> BTreeMap<RowLabels, Row> {
    let scope = Scope::Partition.that_fits(statuses.iter().map(|status| &status.id));
    let mut rows: BTreeMap<RowLabels, Row> = BTreeMap::new();
    for status in statuses {
        let row = rows.entry(scope.labels(&status.id)).or_default();
        if let Some(meter) = report.sum.partitions.get(&status.id) {
            row.meter += meter;
        }
        row.stored_bytes += status.stored.0;
        row.memory_bytes += status.memory.0;
        row.mailbox += status.mailbox;
        row.instances += status.instances;
        row.throttled += status.throttled;
    }
    rows
}

fn latencies(statuses: &[PartitionStatus], hvm: &Hvm) -> BTreeMap<RowLabels, Durations> {
    let scope = Scope::Group.that_fits(statuses.iter().map(|status| &status.id));
    let mut latencies: BTreeMap<RowLabels, Durations> = BTreeMap::new();
    for (deployment, group, durations) in hvm.latencies() {
        let any = ReplicaId { deployment, group, index: 0 };
        latencies.entry(scope.labels(&any)).or_default().merge(&durations);
    }
    latencies
}

impl Process {
    fn observe() -> Self {
        let resident = || {
            let text = std::fs::read_to_string("/proc/self/statm").ok()?;
            let pages: u64 = text.split(' ').nth(1)?.parse().ok()?;
            pages.checked_mul(u64::try_from(rustix::param::page_size()).ok()?)
        };
        let open = || u64::try_from(std::fs::read_dir("/proc/self/fd").ok()?.count()).ok();
        Self {
            cpu: Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or_default(),
            resident_bytes: resident(),
            open_fds: open(),
            max_fds: getrlimit(Resource::Nofile).current,
        }
    }
}
