//! What only the local engine promises: one process per directory, the disk's reserve, stopping.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hvm_runtime::state::{
    CommitError, FreeSpace, LocalConfig, LocalEngine, OpenError, StartError, StateEngine,
};
use hvm_types::{ByteSize, Epoch, Sequence};

use crate::bed::{LocalBed, config, get, open, record, replica};

#[test]
fn a_second_engine_on_the_directory_is_refused_with_the_pid_of_the_first() {
    let bed = LocalBed::new();
    let first = bed.engine();
    match LocalEngine::start(config(&bed.path())) {
        Err(error @ StartError::Locked { .. }) => {
            let expected = format!("process {} has it open", std::process::id());
            assert!(error.to_string().contains(&expected), "{error}");
        }
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("two engines have one directory"),
    }
    drop(first);
    drop(bed.engine());
}

#[test]
fn a_directory_that_can_not_be_made_is_an_error_that_names_it() {
    let bed = LocalBed::new();
    let file = bed.path();
    std::fs::write(&file, "not a directory").expect("a file");
    let error = LocalEngine::start(config(&file.join("state"))).err().expect("a refusal");
    assert!(error.to_string().contains(&file.display().to_string()), "{error}");
}

/// An engine whose disk has as many free bytes as the test says.
fn engine_with_space(bed: &LocalBed) -> (LocalEngine, Arc<AtomicU64>) {
    let free = Arc::new(AtomicU64::new(u64::MAX));
    let measured = Arc::clone(&free);
    let free_space = FreeSpace::new(move |_| Ok(ByteSize(measured.load(Ordering::SeqCst))));
    let config = LocalConfig { free_space, ..config(&bed.path()) };
    (LocalEngine::start(config).expect("the engine starts"), free)
}

#[test]
fn a_full_disk_refuses_commits_lets_reads_pass_and_recovers_by_itself() {
    let bed = LocalBed::new();
    let (engine, free) = engine_with_space(&bed);
    let partition = open(&engine, 0, 1);
    assert_eq!(partition.commit(record(&[("a", "1")])).wait(), Ok(Sequence(1)));

    free.store(ByteSize::mib(63).0, Ordering::SeqCst);
    for _ in 0..3 {
        let refused = partition.commit(record(&[("a", "2")])).wait();
        assert!(matches!(refused, Err(CommitError::StorageFull { .. })), "{refused:?}");
    }
    assert_eq!(get(&*partition, "a").as_deref(), Some("1"));
    assert_eq!(get(&*open(&engine, 0, 1), "a").as_deref(), Some("1"), "opening again needs no space");
    let refused = engine.open(&replica(0), Epoch(2)).err();
    assert!(matches!(refused, Some(OpenError::StorageFull { .. })), "{refused:?}");
    let refused = engine.open(&replica(1), Epoch(1)).err();
    assert!(matches!(refused, Some(OpenError::StorageFull { .. })), "{refused:?}");

    free.store(u64::MAX, Ordering::SeqCst);
    assert_eq!(partition.commit(record(&[("a", "3")])).wait(), Ok(Sequence(2)));
    drop((partition, engine));
    assert_eq!(get(&*open(&bed.engine(), 0, 1), "a").as_deref(), Some("3"));
}

#[test]
fn what_is_not_in_tables_yet_is_reserved_on_top() {
    let bed = LocalBed::new();
    let (engine, free) = engine_with_space(&bed);
    let partition = open(&engine, 0, 1);
    let value = "x".repeat(4 << 20);
    partition.commit(record(&[("a", &value)])).wait().expect("the record is committed");
    free.store(ByteSize::mib(66).0, Ordering::SeqCst);
    let refused = partition.commit(record(&[("b", "1")])).wait();
    assert!(matches!(refused, Err(CommitError::StorageFull { .. })), "{refused:?}");
}

#[test]
fn a_full_disk_is_no_place_for_a_new_engine_but_an_old_one_starts() {
    let bed = LocalBed::new();
    let full = || LocalConfig { free_space: FreeSpace::new(|_| Ok(ByteSize(0))), ..config(&bed.path()) };
    assert!(matches!(LocalEngine::start(full()), Err(StartError::StorageFull { .. })));
    let engine = bed.engine();
    open(&engine, 0, 1).commit(record(&[("a", "1")])).wait().expect("the record is committed");
    drop(engine);
    let engine = LocalEngine::start(full()).expect("the engine starts");
    assert_eq!(get(&*open(&engine, 0, 1), "a").as_deref(), Some("1"));
}

#[test]
fn a_creation_that_was_interrupted_is_begun_again() {
    let bed = LocalBed::new();
    drop(bed.engine());
    // The database writes its version last: without it nothing was finished.
    std::fs::remove_file(bed.path().join("fjall/version")).expect("the version's file");
    let engine = bed.engine();
    open(&engine, 0, 1).commit(record(&[("a", "1")])).wait().expect("the record is committed");
    drop(engine);
    std::fs::remove_file(bed.path().join("fjall/version")).expect("the version's file");
    let refused = LocalEngine::start(config(&bed.path()));
    assert!(matches!(refused, Err(StartError::Corrupt { .. })), "acknowledged state was begun again");
}

#[test]
fn more_records_than_the_queue_holds_are_refused_as_busy() {
    let bed = LocalBed::new();
    let engine = LocalEngine::start(LocalConfig { queue_records: 8, ..config(&bed.path()) });
    let engine = engine.expect("the engine starts");
    let partition = open(&engine, 0, 1);
    let futures: Vec<_> = (0..20_000).map(|_| partition.commit(record(&[("a", "1")]))).collect();
    let (mut committed, mut busy) = (0, 0);
    for future in futures {
        match future.wait() {
            Ok(sequence) => {
                committed += 1;
                assert_eq!(sequence, Sequence(committed));
            }
            Err(CommitError::Busy { .. }) => busy += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(busy > 0 && committed >= 8, "{committed} committed, {busy} refused");
}
