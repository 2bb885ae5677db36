//! The power fails in the middle of committing: the disk below loses or tears what was not synced. Needs
//! `/dev/fuse` and the right to mount.

use std::collections::BTreeMap;

use brittle_disk::{BrittleDisk, SyncRule};

use crate::bed::Numbers;
use crate::crash::{check, run_and_kill};

const ROUNDS: u64 = 10;
const ROUNDS_LONG: u64 = 300;

#[test]
fn every_acknowledged_record_is_there_exactly_once_after_a_power_cut() {
    let mut numbers = Numbers::printed();
    let place = tempfile::tempdir().expect("a place to mount at");
    let brittle = BrittleDisk::mount(place.path()).expect("mounting needs /dev/fuse and root");
    let path = place.path().join("state");
    let mut before = BTreeMap::new();
    let mut lost = 0;
    let rounds = if std::env::var_os("HVM_LONG").is_some() { ROUNDS_LONG } else { ROUNDS };
    for round in 0..rounds {
        // Some thousands of records fill tables, so that they are written and merged, too.
        let lines = 1 + numbers.below(if round % 4 == 0 { 6000 } else { 300 });
        let mut acknowledged = run_and_kill(&path, lines);
        let cut = brittle.disk().cut_power(&mut |limit| numbers.below(limit));
        lost += cut.changes.1 + cut.pages.1 + cut.torn;
        for (index, sequence) in &before {
            let now = acknowledged.entry(*index).or_insert(*sequence);
            assert!(*now >= *sequence, "round {round}: the sequence went back");
        }
        before = check(&path, &acknowledged);
    }
    eprintln!("{rounds} cuts: {lost} changes and pages were lost or torn; {before:?}");
    assert!(lost > 0, "the cuts took something");
}

#[test]
fn acknowledged_records_that_a_lying_disk_lost_are_missed() {
    let place = tempfile::tempdir().expect("a place to mount at");
    let brittle = BrittleDisk::mount(place.path()).expect("mounting needs /dev/fuse and root");
    let path = place.path().join("state");
    let acknowledged = run_and_kill(&path, 50);
    brittle.disk().sync_all();
    check(&path, &acknowledged);
    brittle.disk().rule(SyncRule::Lie("state".to_owned()));
    let acknowledged = run_and_kill(&path, 200);
    brittle.disk().cut_power(&mut |_| 0);
    let checked = std::panic::catch_unwind(|| check(&path, &acknowledged));
    assert!(checked.is_err(), "records that were acknowledged and never synced are gone, and nobody noticed");
}
