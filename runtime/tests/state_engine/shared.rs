//! What only the shared engine promises: state outlives its host, and a host that lost it commits nothing more.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use hvm_runtime::state::{
    CommitError, IdentityError, OpenError, ReadError, SharedConfig, SharedEngine, SharedStore, StartError,
    StateEngine,
};
use hvm_types::{ByteSize, Epoch, Sequence};

use crate::bed::{SharedBed, get, keyed, open, record, replica};

/// All files below a folder of the store.
fn files(bed: &SharedBed, folder: &str) -> Vec<PathBuf> {
    fn walk(path: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(path).into_iter().flatten() {
            let path = entry.expect("an entry").path();
            if path.is_dir() { walk(&path, found) } else { found.push(path) }
        }
    }
    let mut found = Vec::new();
    walk(&bed.store_path().join(folder), &mut found);
    found.sort();
    found
}

#[test]
fn a_partition_moves_to_another_host_with_its_state() {
    let bed = SharedBed::new();
    let (first, second) = (bed.engine("host-1"), bed.engine("host-2"));
    let old = open(&first, 0, 1);
    assert_eq!(old.commit(keyed("k", "answer", &[("a", "1")])).wait(), Ok(Sequence(1)));

    let new = open(&second, 0, 2);
    assert_eq!(get(&*new, "a").as_deref(), Some("1"));
    assert_eq!(new.commit(keyed("k", "other", &[("a", "2")])).wait(), Err(CommitError::AlreadyApplied));
    let newest = Epoch(2);
    assert_eq!(old.commit(record(&[("a", "late")])).wait(), Err(CommitError::Fenced { newest }));
    assert_eq!(old.snapshot().err(), Some(ReadError::Fenced { newest }));
    assert_eq!(new.commit(record(&[("b", "2")])).wait(), Ok(Sequence(2)));

    let back = open(&first, 0, 3);
    assert_eq!((get(&*back, "a").as_deref(), get(&*back, "b").as_deref()), (Some("1"), Some("2")));
    assert_eq!(back.commit(record(&[("b", "3")])).wait(), Ok(Sequence(3)));
    assert!(matches!(new.commit(record(&[])).wait(), Err(CommitError::Fenced { .. })));
    assert!(matches!(old.commit(record(&[])).wait(), Err(CommitError::Fenced { .. })), "it came back anew");
}

#[test]
fn a_fence_stops_its_partitions_and_no_others() {
    let bed = SharedBed::new();
    let (first, second) = (bed.engine("host-1"), bed.engine("host-2"));
    let partitions: Vec<_> = (0..10).map(|index| open(&first, index, 1)).collect();
    drop(open(&second, 3, 2));
    let futures: Vec<_> =
        partitions.iter().map(|partition| partition.commit(record(&[("a", "1")]))).collect();
    for (index, future) in futures.into_iter().enumerate() {
        let expected =
            if index == 3 { Err(CommitError::Fenced { newest: Epoch(2) }) } else { Ok(Sequence(1)) };
        assert_eq!(future.wait(), expected, "partition {index}");
    }
}

#[test]
fn one_epoch_belongs_to_one_host() {
    let bed = SharedBed::new();
    let (first, second) = (bed.engine("host-1"), bed.engine("host-2"));
    let partition = open(&first, 0, 5);
    let refused = second.open(&replica(0), Epoch(5)).err();
    assert_eq!(refused, Some(OpenError::Fenced { id: replica(0), epoch: Epoch(5), newest: Epoch(5) }));
    assert_eq!(partition.commit(record(&[("a", "1")])).wait(), Ok(Sequence(1)));
}

#[test]
fn many_partitions_share_one_put() {
    let bed = SharedBed::new();
    let engine = bed.engine("host-1");
    let partitions: Vec<_> = (0..100).map(|index| open(&engine, index, 1)).collect();
    let before = files(&bed, "logs").len();
    let futures: Vec<_> =
        partitions.iter().map(|partition| partition.commit(record(&[("a", "1")]))).collect();
    for future in futures {
        future.wait().expect("the record is committed");
    }
    let puts = files(&bed, "logs").len() - before;
    assert!(puts <= 20, "{puts} puts for 100 partitions");
}

#[test]
fn what_is_stored_follows_what_there_is_and_not_the_history() {
    let bed = SharedBed::new();
    let config = SharedConfig { upkeep: ByteSize::kib(64), ..bed.config("host-1") };
    let engine = SharedEngine::start(config).expect("the engine starts");
    let partitions: Vec<_> = (0..4).map(|index| open(&engine, index, 1)).collect();
    let value = "x".repeat(4000);
    for round in 0..60 {
        let key = format!("key-{}", round % 3);
        let futures: Vec<_> =
            partitions.iter().map(|partition| partition.commit(record(&[(&key, &value)]))).collect();
        for future in futures {
            future.wait().expect("the record is committed");
        }
    }
    drop((partitions, engine));
    let bytes: u64 = files(&bed, "").iter().map(|path| path.metadata().expect("a file").len()).sum();
    // 960,000 bytes were committed, 48,000 are there.
    assert!(bytes < 600_000, "{bytes} bytes are stored: {:#?}", files(&bed, ""));

    let other = bed.engine("host-2");
    for index in 0..4 {
        let partition = open(&other, index, 2);
        assert_eq!(partition.sequence(), Ok(Sequence(60)));
        assert_eq!(get(&*partition, "key-2"), Some(value.clone()));
    }
}

#[test]
fn a_large_state_moves_through_a_checkpoint() {
    let bed = SharedBed::new();
    let first = bed.engine("host-1");
    let partition = open(&first, 0, 1);
    for index in 0..40 {
        let value = format!("{index}-{}", "x".repeat(50_000));
        partition
            .commit(record(&[(&format!("key-{index}"), &value)]))
            .wait()
            .expect("the record is committed");
    }
    drop((partition, first));
    let partition = open(&bed.engine("host-2"), 0, 2);
    drop(partition);
    let engine = bed.engine("host-3");
    let partition = open(&engine, 0, 3);
    assert_eq!((partition.sequence(), partition.stored_bytes()), (Ok(Sequence(40)), Ok(ByteSize(2_000_340))));
    assert!(get(&*partition, "key-39").is_some_and(|value| value.starts_with("39-")));
}

#[test]
fn the_log_of_a_dead_engine_is_deleted_with_its_last_partition() {
    let bed = SharedBed::new();
    let engine = bed.engine("host-1");
    for index in 0..2 {
        open(&engine, index, 1).commit(record(&[("a", "1")])).wait().expect("the record is committed");
    }
    drop(engine);
    let dead = files(&bed, "logs");
    let other = bed.engine("host-2");
    let first = open(&other, 0, 2);
    assert!(dead.iter().all(|path| path.exists()), "a partition of it is not taken yet");
    let second = open(&other, 1, 2);
    // The deletion follows the answer; the next opening waits for it.
    drop(open(&other, 2, 1));
    assert!(dead.iter().all(|path| !path.exists()), "{dead:?}");
    assert_eq!((get(&*first, "a").as_deref(), get(&*second, "a").as_deref()), (Some("1"), Some("1")));
}

#[test]
fn damage_is_an_error_that_names_the_object() {
    let bed = SharedBed::new();
    let engine = bed.engine("host-1");
    let partition = open(&engine, 0, 1);
    for _ in 0..3 {
        partition.commit(record(&[("a", "1")])).wait().expect("the record is committed");
    }
    drop((partition, engine));
    let segment = files(&bed, "logs")[1].clone();
    let whole = std::fs::read(&segment).expect("a segment");
    let mut damaged = whole.clone();
    damaged[60] ^= 1;
    std::fs::write(&segment, damaged).expect("a segment");
    let refusal = || match bed.engine("host-2").open(&replica(0), Epoch(2)) {
        Err(OpenError::Corrupt { what, .. }) => what,
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("damaged state was opened"),
    };
    let what = refusal();
    assert!(what.contains("00000001") && what.contains("checksum"), "{what}");
    std::fs::remove_file(&segment).expect("a segment");
    let what = refusal();
    assert!(what.contains("00000001") && what.contains("missing"), "{what}");
    std::fs::write(&segment, whole).expect("a segment");
    assert_eq!(get(&*open(&bed.engine("host-2"), 0, 2), "a").as_deref(), Some("1"));
}

#[test]
fn a_directory_is_used_by_one_engine_at_a_time() {
    let bed = SharedBed::new();
    let first = bed.engine("host-1");
    let refused = SharedEngine::start(bed.config("host-1")).err();
    assert!(matches!(refused, Some(StartError::Locked { .. })), "{refused:?}");
    drop(first);
    drop(bed.engine("host-1"));
}

const STORE: &str = "STATE_SHARED_STORE";

/// Not a test of its own: the process that the tests below stop and kill. Without its variable it does nothing.
#[test]
fn commit_until_fenced() {
    let Ok(path) = std::env::var(STORE) else { return };
    let store = hvm_runtime::state::SharedStore::directory(&Path::new(&path).join("store")).expect("a store");
    let config = SharedConfig::new("host-1".parse().expect("a host"), store, Path::new(&path).join("child"));
    let engine = SharedEngine::start(config).expect("the engine starts");
    std::thread::scope(|scope| {
        for index in 0..3 {
            let partition = open(&engine, index, 1);
            scope.spawn(move || {
                for entry in 1_u64.. {
                    let committed = partition.commit(record(&[("entry", &entry.to_string())])).wait();
                    let line = match committed {
                        Ok(sequence) => format!("ack {index} {sequence}\n"),
                        Err(CommitError::Fenced { .. }) => format!("fenced {index} 0\n"),
                        Err(error) => panic!("{error}"),
                    };
                    std::io::stdout().write_all(line.as_bytes()).expect("the parent reads");
                    if line.starts_with("fenced") {
                        return;
                    }
                }
            });
        }
    });
}

struct Owner {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
    acknowledged: [u64; 3],
    fenced: u64,
}

impl Owner {
    fn start(bed: &SharedBed) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("this test's program"))
            .args(["--exact", "shared::commit_until_fenced", "--nocapture"])
            .env(STORE, bed.store_path().parent().expect("it has one"))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the child starts");
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        Self { child, lines, acknowledged: [0; 3], fenced: 0 }
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let process = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(process, signal).expect("the child runs");
    }

    /// Reads one line; `false` at the end.
    fn read(&mut self) -> bool {
        let Some(Ok(line)) = self.lines.next() else { return false };
        let words: Vec<_> = line.split_whitespace().rev().take(3).collect();
        if let [number, index, word] = words[..]
            && let (Ok(number), Ok(index)) = (number.parse(), index.parse::<usize>())
        {
            match word {
                "fenced" => self.fenced += 1,
                _ => self.acknowledged[index] = number,
            }
        }
        true
    }
}

#[test]
fn an_owner_that_was_stopped_and_wakes_commits_nothing() {
    let bed = SharedBed::new();
    let mut owner = Owner::start(&bed);
    while owner.acknowledged.iter().any(|count| *count < 5) {
        assert!(owner.read(), "the child commits");
    }
    owner.signal(rustix::process::Signal::STOP);
    let engine = bed.engine("host-2");
    let taken: Vec<_> = (0..3).map(|index| open(&engine, index, 2)).collect();
    let found: Vec<_> = taken.iter().map(|partition| partition.sequence().expect("a sequence").0).collect();
    for partition in &taken {
        partition.commit(record(&[("owner", "2")])).wait().expect("the record is committed");
    }
    owner.signal(rustix::process::Signal::CONT);
    while owner.read() {}
    owner.child.wait().expect("the child has ended");
    assert_eq!(owner.fenced, 3, "its late records were refused");
    for (index, partition) in taken.iter().enumerate() {
        assert!(owner.acknowledged[index] <= found[index], "an acknowledged record is missing");
        assert_eq!(
            get(&**partition, "entry"),
            Some(found[index].to_string()),
            "nothing came after the fence"
        );
        assert_eq!(partition.sequence(), Ok(Sequence(found[index] + 1)));
    }
}

#[test]
fn state_outlives_the_host_that_was_killed() {
    let bed = SharedBed::new();
    let mut owner = Owner::start(&bed);
    while owner.acknowledged.iter().any(|count| *count < 20) {
        assert!(owner.read(), "the child commits");
    }
    owner.child.kill().expect("the child runs");
    while owner.read() {}
    owner.child.wait().expect("the child has ended");
    let engine = bed.engine("host-2");
    for (index, acknowledged) in (0..).zip(owner.acknowledged) {
        let partition = open(&engine, index, 2);
        let found = partition.sequence().expect("a sequence").0;
        assert!(
            (acknowledged..=acknowledged + 1).contains(&found),
            "{acknowledged} acknowledged, {found} found"
        );
        assert_eq!(get(&*partition, "entry"), Some(found.to_string()));
    }
}

#[test]
fn a_store_that_is_gone_makes_commits_unavailable_and_reads_go_on() {
    let bed = SharedBed::new();
    let config = SharedConfig { attempts: 2, attempt: Duration::from_secs(1), ..bed.config("host-1") };
    let engine = SharedEngine::start(config).expect("the engine starts");
    let partition = open(&engine, 0, 1);
    partition.commit(record(&[("a", "1")])).wait().expect("the record is committed");
    let aside = bed.store_path().with_extension("aside");
    std::fs::rename(bed.store_path(), &aside).expect("the store is moved");
    std::fs::write(bed.store_path(), "in its place").expect("a file");
    let refused = partition.commit(keyed("k", "", &[("a", "2")])).wait();
    assert!(matches!(refused, Err(CommitError::Unavailable { .. })), "{refused:?}");
    assert_eq!(get(&*partition, "a").as_deref(), Some("1"));
    std::fs::remove_file(bed.store_path()).expect("a file");
    std::fs::rename(aside, bed.store_path()).expect("the store is back");
    // The record whose end was unknown is committed before any other.
    let again = loop {
        match partition.commit(keyed("k", "", &[("a", "2")])).wait() {
            Err(CommitError::Unavailable { .. }) => {}
            result => break result,
        }
    };
    assert_eq!(again, Err(CommitError::AlreadyApplied));
    assert_eq!(get(&*partition, "a").as_deref(), Some("2"));
}

#[test]
fn all_who_reach_a_store_know_it_by_one_identity_whatever_its_address() {
    let bed = SharedBed::new();
    let identity = |path: &std::path::Path| {
        SharedStore::directory(path).expect("a directory").identity().expect("an identity")
    };
    let first = identity(&bed.store_path());
    let link = bed.store_path().with_extension("link");
    std::os::unix::fs::symlink(bed.store_path(), &link).expect("another address");
    assert_eq!(identity(&link), first);
    assert_ne!(identity(&bed.store_path().with_extension("other")), first);
    std::fs::write(bed.store_path().join("identity"), "a note of somebody else").expect("written");
    let refused = SharedStore::directory(&bed.store_path()).expect("a directory").identity();
    assert!(matches!(refused, Err(IdentityError::Foreign { .. })), "{refused:?}");
}

#[test]
fn a_partition_is_listed_with_the_host_that_has_claimed_it() {
    let bed = SharedBed::new();
    let start = |host| SharedEngine::start(bed.config(host)).expect("the engine starts");
    let (first, second) = (start("host-1"), start("host-2"));
    let owner = |engine: &SharedEngine| {
        let listed = engine.partitions().expect("a listing");
        listed[0].owner.as_ref().map(ToString::to_string)
    };
    let _old = open(&first, 0, 1);
    assert_eq!((owner(&first), owner(&second)), (Some("host-1".to_owned()), Some("host-1".to_owned())));
    let _new = open(&second, 0, 2);
    assert_eq!((owner(&first), owner(&second)), (Some("host-2".to_owned()), Some("host-2".to_owned())));
}
