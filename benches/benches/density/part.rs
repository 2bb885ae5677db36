//! The parts: each opens what it needs, measures, and returns its lines of the table.

use std::time::{Duration, Instant};

use futures::{StreamExt as _, stream};

use crate::bed::{self, Bed, Kind};
use crate::process::{self, Footprint};

/// Live partitions where nothing else is said.
pub(crate) const LIVE: u32 = 10_000;
/// Hibernated partitions where nothing else is said.
pub(crate) const HIBERNATED: u32 = 100_000;
/// No partition hibernates by itself.
const NEVER: Duration = Duration::from_secs(24 * 60 * 60);
/// Partitions hibernate as soon as possible.
const AT_ONCE: Duration = Duration::from_millis(40);
/// Requests under way at a time on one worker.
const CLIENTS: usize = 16;
/// For how long requests are counted.
const COUNTED: Duration = Duration::from_secs(4);

/// Runs one part.
pub(crate) fn run(name: &str, live: u32, hibernated: u32) -> String {
    match name {
        "start" => start(),
        "live" => live_partitions(live),
        "hibernated-stateful" => hibernated_partitions(hibernated, Kind::Stateful),
        "hibernated-stateless" => hibernated_partitions(hibernated, Kind::Stateless),
        "wake" => wake(Kind::Stateful) + &wake(Kind::Stateless),
        "requests" => requests(live),
        _ => panic!("no part is called `{name}`"),
    }
}

fn start() -> String {
    let before = Footprint::now();
    let began = Instant::now();
    let bed = Bed::new(NEVER);
    let took = began.elapsed();
    let after = Footprint::now();
    bed.stop();
    let resident = bytes((after.resident - before.resident) as f64);
    format!(
        "| start with {} instances: time | {took:.1?} |\n| start: resident | {resident} |\n| start: mappings | {} |\n",
        hvm_runtime::HvmConfig::new("/").max_instances,
        after.mappings - before.mappings
    )
}

fn live_partitions(count: u32) -> String {
    let mut bed = Bed::new(NEVER);
    let before = Footprint::now();
    let began = Instant::now();
    bed.open(count, Kind::Stateful);
    let opened = began.elapsed();
    bed.on_workers(async |hvm, ids| {
        for id in &ids {
            bed::ask(&hvm, id).await;
        }
    });
    let live = bed.live();
    let each = Footprint::now().per(before, count);
    let lines = table(&format!("{live} live of {count}"), each, opened, count);
    bed.stop();
    lines
}

fn hibernated_partitions(count: u32, kind: Kind) -> String {
    let mut bed = Bed::new(AT_ONCE);
    let before = Footprint::now();
    let began = Instant::now();
    bed.open(count, kind);
    let opened = began.elapsed();
    bed.wait_for_live(|live| live == 0);
    let each = Footprint::now().per(before, count);
    let what = format!("{count} hibernated, {kind:?}").to_lowercase();
    let mut lines = table(&what, each, opened, count);
    let (cpu, idle) = (process::cpu(), Duration::from_secs(5));
    std::thread::sleep(idle);
    let share = (process::cpu() - cpu).as_secs_f64() / idle.as_secs_f64() * 100.0;
    lines += &format!("| {what}: idle, of one core | {share:.2} % |\n");
    bed.stop();
    lines
}

fn table(what: &str, each: process::PerPartition, opened: Duration, count: u32) -> String {
    let process::PerPartition { resident, private, mappings } = each;
    format!(
        "| {what}: resident, each | {} |\n| {what}: private with page tables, each | {} |\n\
         | {what}: mappings, each | {mappings:.2} |\n| {what}: opening, each | {:.1?} |\n",
        bytes(resident),
        bytes(private),
        opened / count,
    )
}

fn bytes(count: f64) -> String {
    if count < 10_000.0 {
        format!("{count:.0} B")
    } else if count < 1e7 {
        format!("{:.1} KiB", count / 1024.0)
    } else {
        format!("{:.1} MiB", count / 1024.0 / 1024.0)
    }
}

/// Partitions of which each is woken once.
const WOKEN: u32 = 4_000;

fn wake(kind: Kind) -> String {
    let mut bed = Bed::new(Duration::from_millis(1_000));
    bed.open(WOKEN, kind);
    bed.wait_for_live(|live| live == 0);
    let mut took: Vec<Duration> = bed
        .on_workers(async |hvm, ids| {
            let mut took = Vec::with_capacity(ids.len());
            for id in &ids {
                took.push(bed::ask(&hvm, id).await);
            }
            took
        })
        .concat();
    took.sort_unstable();
    bed.stop();
    let at = |share: usize| took[took.len() * share / 1000];
    let kind = format!("{kind:?}").to_lowercase();
    format!(
        "| wake to whole answer, {kind}: p50 | {:.1?} |\n| wake to whole answer, {kind}: p99 | {:.1?} |\n| wake to whole answer, {kind}: p99.9 | {:.1?} |\n",
        at(500),
        at(990),
        at(999)
    )
}

fn requests(most: u32) -> String {
    let mut lines = String::new();
    for count in [1, 10, 1_000, 10_000].into_iter().filter(|count| *count <= most.max(1)) {
        let mut bed = Bed::new(NEVER);
        bed.open(count, Kind::Stateless);
        count_requests(&bed, COUNTED / 4);
        let cpu = process::cpu();
        let began = Instant::now();
        let answered = count_requests(&bed, COUNTED);
        let (cpu, took) = (process::cpu() - cpu, began.elapsed());
        bed.stop();
        let rate = answered as f64 / took.as_secs_f64();
        let each = cpu.as_secs_f64() / answered as f64 * 1e6;
        lines +=
            &format!("| requests over {count} partitions | {rate:.0} /s, {each:.1} µs of processor each |\n");
    }
    lines
}

fn count_requests(bed: &Bed, time: Duration) -> u64 {
    let until = Instant::now() + time;
    let counts = bed.on_workers(move |hvm, ids| async move {
        let asked = stream::iter(ids.iter().cycle().take_while(|_| Instant::now() < until));
        let asked = asked.map(|id| bed::ask(&hvm, id)).buffer_unordered(CLIENTS);
        asked.count().await as u64
    });
    counts.into_iter().sum()
}
