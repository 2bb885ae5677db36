//! Real write errors below the engine: nothing is acknowledged on them, and it recovers by itself.
//!
//! A limit on the size of files stands for a full disk: writes fail in the database itself. It needs a process
//! of its own, in which SIGXFSZ is ignored, which a shell arranges.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use hvm_runtime::state::{CommitError, PartitionState};
use hvm_types::Sequence;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::bed::{LocalBed, get, keyed, open, record, start_local};

const DIRECTORY: &str = "STATE_DISK_DIRECTORY";
const PATIENCE: Duration = Duration::from_secs(20);

fn limit_files(bytes: Option<u64>) {
    let hard = getrlimit(Resource::Fsize).maximum;
    setrlimit(Resource::Fsize, Rlimit { current: bytes.or(hard), maximum: hard })
        .expect("a lower soft limit");
}

/// Commits the same until it passes, and says how often it did not.
fn commit_until_it_passes(partition: &dyn PartitionState, value: &str) -> Sequence {
    let started = Instant::now();
    loop {
        match partition.commit(record(&[("a", value)])).wait() {
            Ok(sequence) => return sequence,
            Err(CommitError::StorageFull { .. } | CommitError::Unavailable { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        assert!(started.elapsed() < PATIENCE, "it does not recover");
        std::thread::yield_now();
    }
}

/// Not a test of its own: what the test below runs with SIGXFSZ ignored. Without its variable it does nothing.
#[test]
fn commit_with_limited_files() {
    let Ok(directory) = std::env::var(DIRECTORY) else { return };
    let engine = start_local(Path::new(&directory));
    let partition = open(&engine, 0, 1);
    assert_eq!(partition.commit(record(&[("a", "1")])).wait(), Ok(Sequence(1)));

    limit_files(Some(1 << 20));
    let big = "x".repeat(3 << 20);
    let refused = partition.commit(keyed("key", "", &[("a", &big), ("b", "big")])).wait();
    assert!(matches!(refused, Err(CommitError::StorageFull { .. })), "{refused:?}");
    assert_eq!(get(&*partition, "a").as_deref(), Some("1"), "reads go on");
    assert_eq!(commit_until_it_passes(&*partition, "2"), Sequence(2), "small records fit again");
    assert_eq!(get(&*partition, "b"), None, "the refused record is absent");
    let answer = partition.answer(&"key".parse().expect("a valid key"));
    assert_eq!(answer, Ok(None), "and so is its answer");

    let refused = partition.commit(keyed("key", "", &[("a", &big), ("b", "big")])).wait();
    assert!(matches!(refused, Err(CommitError::StorageFull { .. })), "{refused:?}");
    limit_files(None);
    assert_eq!(commit_until_it_passes(&*partition, &big), Sequence(3));
    println!("the limited process is done");
}

#[test]
fn a_write_that_fails_in_the_journal_is_refused_and_cut_and_the_engine_recovers() {
    let bed = LocalBed::new();
    let program = std::env::current_exe().expect("this test's program");
    let output = Command::new("sh")
        .args(["-c", r#"trap "" XFSZ; exec "$0" --exact disk::commit_with_limited_files --nocapture"#])
        .arg(program)
        .env(DIRECTORY, bed.path())
        .output()
        .expect("a shell");
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("is done"), "{text}\n{errors}");
    let partition = open(&bed.engine(), 0, 1);
    drop(partition);
    let engine = bed.engine();
    assert_eq!(open(&engine, 0, 1).sequence(), Ok(Sequence(3)));
}

#[test]
fn a_failed_worker_of_the_database_stops_commits_until_it_can_work_again() {
    let bed = LocalBed::new();
    let engine = bed.engine();
    let partition = open(&engine, 0, 1);
    let big = "x".repeat(1 << 20);
    assert!(partition.commit(record(&[("a", &big)])).wait().is_ok());

    // Its tables can't be written while their directory is none.
    let keyspaces: Vec<_> = std::fs::read_dir(bed.path().join("fjall/keyspaces"))
        .expect("the keyspaces")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    for keyspace in &keyspaces {
        std::fs::rename(keyspace.join("tables"), keyspace.join("tables-away")).expect("the tables go");
        std::fs::write(keyspace.join("tables"), "").expect("a file instead");
    }
    let started = Instant::now();
    let mut acknowledged = 1;
    let refused = loop {
        match partition.commit(record(&[("a", &big), ("n", &(acknowledged + 1).to_string())])).wait() {
            Ok(Sequence(sequence)) => acknowledged = sequence,
            Err(error) => break error,
        }
        assert!(started.elapsed() < PATIENCE, "the worker does not fail");
    };
    assert!(matches!(refused, CommitError::Unavailable { .. }), "{refused:?}");
    for keyspace in &keyspaces {
        std::fs::remove_file(keyspace.join("tables")).expect("the file goes");
        std::fs::rename(keyspace.join("tables-away"), keyspace.join("tables")).expect("the tables come back");
    }
    assert_eq!(commit_until_it_passes(&*partition, "2"), Sequence(acknowledged + 1));
    assert_eq!(get(&*partition, "n"), Some(acknowledged.to_string()));
    drop((partition, engine));
    let engine = bed.engine();
    assert_eq!(open(&engine, 0, 1).sequence(), Ok(Sequence(acknowledged + 1)));
}
