//! State that grew: opening a partition with a long history, bytes written to the disk for each byte committed, and
//! what open partitions cost that nobody asks.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hvm_benches::disk;
use hvm_runtime::state::{CommitFuture, HistoryWindow, Retention};
use hvm_types::{ByteSize, Epoch};

use crate::commits::{engine, id, open, record};
use crate::report::millis;

/// Bytes of a value in the history.
const LARGE: usize = 64 << 10;
/// Commits that are under way while state is made.
const UNDER_WAY: usize = 256;
/// Partitions that do nothing, and for how long.
const IDLE: u32 = 10_000;
const IDLE_FOR: Duration = Duration::from_secs(5);

pub(crate) fn table(history_mib: u64) -> String {
    let mut table = "\n| Measured | local | shared, a directory |\n|---|--:|--:|\n".to_owned();
    let opened = [false, true].map(|shared| open_with_history(shared, history_mib));
    let whats = [
        "starting the engine",
        "opening the partition, the same epoch",
        "opening the partition, the next epoch",
    ];
    for (at, what) in whats.into_iter().enumerate() {
        let [local, shared] = opened.map(|took| millis(took[at]));
        table += &format!("| {what}, {history_mib} MiB of history | {local} | {shared} |\n");
    }
    for bytes in [disk::VALUE_BYTES, 1 << 10, 16 << 10] {
        let [local, shared] = [false, true].map(|shared| amplification(shared, bytes));
        table += &format!(
            "| bytes written for each committed, values of {bytes} bytes | {local:.2} | {shared:.2} |\n"
        );
    }
    let [local, shared] = [false, true].map(idle);
    table += &format!("| {IDLE} open partitions, idle, of one core | {local:.2} % | {shared:.2} % |\n");
    table
}

/// Times to start the engine again and to open a partition twice, with the epoch that it had and with the next.
fn open_with_history(shared: bool, mib: u64) -> [Duration; 3] {
    let folder = disk::folder();
    let retention = Retention {
        history: Some(HistoryWindow {
            records: u64::MAX,
            bytes: ByteSize::mib(mib + 64),
            age: Duration::MAX,
        }),
        ..Retention::default()
    };
    {
        let engine = engine(folder.path(), shared);
        let partitions = open(&*engine, 1);
        let values = mib * (1 << 20) / LARGE as u64;
        commit_all(values, |number| partitions[0].commit(record(number % 64, large(number), retention)));
    }
    let began = Instant::now();
    let engine = engine(folder.path(), shared);
    let start = began.elapsed();
    let time = |epoch| {
        let began = Instant::now();
        let partition = engine.open(&id(0), Epoch(epoch)).expect("the partition opens");
        assert!(partition.sequence().expect("its head is there").0 > 0, "its records are there");
        began.elapsed()
    };
    [start, time(1), time(2)]
}

/// Bytes that can't be made shorter, and differ.
fn large(number: u64) -> Bytes {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..LARGE / 8).flat_map(|_| next()).collect::<Vec<u8>>().into()
}

fn commit_all(count: u64, commit: impl Fn(u64) -> CommitFuture) {
    let mut waiting = std::collections::VecDeque::new();
    for number in 0..count {
        if waiting.len() == UNDER_WAY {
            let first: Option<CommitFuture> = waiting.pop_front();
            first.expect("some wait").wait().expect("room on the disk");
        }
        waiting.push_back(commit(number));
    }
    for commit in waiting {
        commit.wait().expect("room on the disk");
    }
}

/// What the process wrote to the disk for each byte of keys and values that was committed, with everything that a
/// database does later and until it is closed.
#[expect(clippy::cast_precision_loss, reason = "bytes are far below 2^52")]
fn amplification(shared: bool, bytes: usize) -> f64 {
    let folder = disk::folder();
    let count = (256 << 20) / (bytes as u64 + 16);
    let count = count.min(200_000);
    let value = Bytes::from(large(7).iter().copied().cycle().take(bytes).collect::<Vec<u8>>());
    let before = written();
    {
        let engine = engine(folder.path(), shared);
        let partitions = open(&*engine, 100);
        let commit = |number: u64| {
            let partition = &partitions[usize::try_from(number % 100).expect("a small number")];
            partition.commit(record(number / 100, value.clone(), Retention::default()))
        };
        commit_all(count, commit);
    }
    (written() - before) as f64 / (count * (bytes as u64 + 16)) as f64
}

/// `write_bytes` of proc(5): what this process made the kernel write to disks.
fn written() -> u64 {
    let io = fs::read_to_string(Path::new("/proc/self/io")).expect("procfs is mounted");
    let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: ")).expect("proc(5) has it");
    line.trim().parse().expect("a number")
}

/// Processor time of open partitions that nobody asks, in percent of one core.
fn idle(shared: bool) -> f64 {
    let folder = disk::folder();
    let engine = engine(folder.path(), shared);
    let _partitions = open(&*engine, IDLE);
    let clock = || rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    // What opening left to do.
    std::thread::sleep(Duration::from_secs(1));
    let before = clock();
    std::thread::sleep(IDLE_FOR);
    let used = Duration::try_from(clock() - before).unwrap_or_default();
    used.as_secs_f64() / IDLE_FOR.as_secs_f64() * 100.0
}
