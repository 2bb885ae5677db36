//! SIGKILL in the middle of committing: every acknowledged record is there afterwards, exactly once.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use hvm_runtime::state::{IdempotencyKey, PartitionState};
use hvm_types::Sequence;

use crate::bed::{LocalBed, Numbers, get, keyed, open, start_local};

const DIRECTORY: &str = "STATE_CRASH_DIRECTORY";
const PARTITIONS: u32 = 6;
const ROUNDS: u64 = 8;

/// Not a test of its own: the process that the test below kills. Run without its variable, it does nothing.
#[test]
fn commit_until_killed() {
    let Ok(directory) = std::env::var(DIRECTORY) else { return };
    let engine = start_local(Path::new(&directory));
    let epoch = engine_epoch(&engine);
    std::thread::scope(|scope| {
        for index in 0..PARTITIONS {
            let partition = open(&engine, index, epoch);
            scope.spawn(move || {
                loop {
                    let sequence = commit_next(&*partition);
                    // One write per line, so that a kill never leaves half a line of another thread.
                    let line = format!("ack {index} {sequence}\n");
                    std::io::stdout().write_all(line.as_bytes()).expect("the parent reads");
                }
            });
        }
    });
}

fn engine_epoch(engine: &hvm_runtime::state::LocalEngine) -> u64 {
    use hvm_runtime::state::StateEngine;
    let partitions = engine.partitions().expect("a list");
    partitions.iter().map(|info| info.epoch.0).max().unwrap_or(0) + 1
}

/// Adds one entry and counts it, both in one record with a key of its own.
fn commit_next(partition: &dyn PartitionState) -> Sequence {
    let next = get(partition, "count").map_or(0, |count| count.parse::<u64>().expect("a number")) + 1;
    let padding = "x".repeat(usize::try_from(next % 3000).expect("a small number"));
    let name = format!("entry-{next:06}");
    let record = keyed(&name, &next.to_string(), &[(&name, &padding), ("count", &next.to_string())]);
    let sequence = partition.commit(record).wait().expect("the record is committed");
    assert_eq!(sequence, Sequence(next), "one record per entry");
    sequence
}

pub(crate) fn run_and_kill(directory: &Path, lines: usize) -> BTreeMap<u32, u64> {
    let program = std::env::current_exe().expect("this test's program");
    let mut child = Command::new(program)
        .args(["--exact", "crash::commit_until_killed", "--nocapture"])
        .env(DIRECTORY, directory)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the child starts");
    let mut output = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut acknowledged = BTreeMap::new();
    let mut read = |output: &mut BufReader<_>| {
        let mut line = String::new();
        if output.read_line(&mut line).expect("the child's output") == 0 {
            return None;
        }
        // The test runner of the child may write in front of the first line.
        let Some(start) = line.find("ack ").filter(|_| line.ends_with('\n')) else { return Some(()) };
        let mut words = line[start..].split_whitespace().skip(1).map(|word| word.parse::<u64>());
        let (Some(Ok(index)), Some(Ok(sequence))) = (words.next(), words.next()) else { return Some(()) };
        acknowledged.insert(u32::try_from(index).expect("a small number"), sequence);
        Some(())
    };
    for _ in 0..lines {
        read(&mut output).expect("the child commits until it is killed");
    }
    child.kill().expect("the child runs");
    while read(&mut output).is_some() {}
    child.wait().expect("the child has ended");
    acknowledged
}

/// Returns what was found: where the next round starts from.
pub(crate) fn check(directory: &Path, acknowledged: &BTreeMap<u32, u64>) -> BTreeMap<u32, u64> {
    let mut all_found = BTreeMap::new();
    let engine = start_local(directory);
    let epoch = engine_epoch(&engine);
    for (&index, &sequence) in acknowledged {
        let partition = open(&engine, index, epoch);
        let found = partition.sequence().expect("a sequence").0;
        // One record may have been durable without its acknowledgement having been seen.
        assert!(
            (sequence..=sequence + 1).contains(&found),
            "{index}: {sequence} acknowledged, {found} found"
        );
        all_found.insert(index, found);
        assert_eq!(get(&*partition, "count"), Some(found.to_string()));
        let snapshot = partition.snapshot().expect("a snapshot");
        let (mut entries, mut cursor) = (Vec::new(), None);
        loop {
            let page = snapshot.list_keys("default", cursor.as_deref(), 1000).expect("a page");
            entries.extend(page.keys.into_iter().filter(|key| key.starts_with("entry-")));
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        let expected: Vec<_> = (1..=found).map(|entry| format!("entry-{entry:06}")).collect();
        assert_eq!(entries, expected, "partition {index}");
        for entry in [1, found / 2 + 1, found] {
            let key: IdempotencyKey = format!("entry-{entry:06}").parse().expect("a valid key");
            let answer = partition.answer(&key).expect("a read").expect("the answer was committed too");
            assert_eq!(answer.sequence, Sequence(entry));
        }
    }
    all_found
}

#[test]
fn every_acknowledged_record_is_there_exactly_once_after_sigkill() {
    let mut numbers = Numbers::printed();
    let bed = LocalBed::new();
    let mut before = BTreeMap::new();
    for round in 0..ROUNDS {
        let lines = 1 + numbers.below(600);
        let mut acknowledged = run_and_kill(&bed.path(), lines);
        for (index, sequence) in &before {
            let now = acknowledged.entry(*index).or_insert(*sequence);
            assert!(*now >= *sequence, "round {round}: the sequence went back");
        }
        before = check(&bed.path(), &acknowledged);
    }
}
