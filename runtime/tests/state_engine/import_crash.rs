//! SIGKILL in the middle of importing: the partition is wholly what one import made of it, or not there.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use bytes::Bytes;
use hvm_runtime::state::StateEngine;
use hvm_runtime::state::file;
use hvm_types::Sequence;

use crate::bed::{LocalBed, Numbers, keyed, open, record, replica, start_local};
use crate::state_file::{exported, import, parts};

const DIRECTORY: &str = "STATE_IMPORT_DIRECTORY";
const ROUNDS: u64 = 8;
const FILES: [&str; 2] = ["even", "odd"];

/// Not a test of its own: the process that the test below kills. Run without its variable, it does nothing.
#[test]
fn import_until_killed() {
    let Ok(directory) = std::env::var(DIRECTORY) else { return };
    let folder = Path::new(&directory);
    let engine = start_local(&folder.join("state"));
    for name in FILES.iter().cycle() {
        let file = File::open(folder.join(name)).expect("the file was made before");
        std::io::stdout().write_all(b"begin\n").expect("the parent reads");
        import(&engine, &replica(0), 1, true, file).expect("it is imported");
        std::io::stdout().write_all(b"done\n").expect("the parent reads");
    }
}

/// Two files of some MiB that share no value.
fn make_files(folder: &Path, numbers: &mut Numbers) {
    for name in FILES {
        let bed = LocalBed::new();
        let engine = bed.engine();
        let partition = open(&engine, 0, 1);
        for round in 0..30 {
            let mut keyed = keyed(&format!("key-{round}"), name, &[]);
            for key in 0..100 {
                let value = name.repeat(1 + numbers.below(400));
                keyed.writes.put(name, &format!("{round}-{key}"), Bytes::from(value.clone()));
                keyed.writes.put("both", &format!("{round}-{key}"), Bytes::from(value));
            }
            partition.commit(keyed).wait().expect("it is committed");
        }
        std::fs::write(folder.join(name), exported(&engine, &replica(0)).0).expect("a file");
    }
}

/// Kills the importing process after so many lines; returns how many imports it had finished.
fn run_and_kill(folder: &Path, lines: usize, pause: u64) -> usize {
    let program = std::env::current_exe().expect("this test's program");
    let mut child = Command::new(program)
        .args(["--exact", "import_crash::import_until_killed", "--nocapture"])
        .env(DIRECTORY, folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the child starts");
    let output = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut output = output.lines().map(|line| line.expect("the child's output"));
    let said: Vec<String> = output.by_ref().filter(|line| !line.contains("test")).take(lines).collect();
    // A busy wait: the moment within the import is what differs from round to round.
    for _ in 0..pause {
        std::hint::spin_loop();
    }
    child.kill().expect("the child runs");
    let done = said.into_iter().chain(output).filter(|line| line.ends_with("done")).count();
    child.wait().expect("the child has ended");
    done
}

#[test]
fn an_import_that_is_killed_leaves_all_of_one_file_or_what_was_there() {
    let mut numbers = Numbers::printed();
    let bed = LocalBed::new();
    let folder = bed.path().parent().expect("it has a parent").to_owned();
    make_files(&folder, &mut numbers);
    let contents = FILES.map(|name| {
        let bytes = std::fs::read(folder.join(name)).expect("a file");
        parts(&bytes).expect("it is whole")
    });
    let mut was_there = false;
    for round in 0..ROUNDS {
        let pause = numbers.next() % 30_000_000;
        let done = run_and_kill(&folder, 1 + numbers.below(4), pause);
        let engine = start_local(&bed.path());
        let Some(scan) = engine.scan(&replica(0)).expect("a read") else {
            assert!(!was_there && done == 0, "round {round}: what {done} imports made is gone");
            assert_eq!(engine.partitions(), Ok(Vec::new()));
            continue;
        };
        was_there = true;
        file::check(&*scan).expect("nothing is wrong");
        let found = parts(&exported(&engine, &replica(0)).0).expect("it is whole");
        assert!(contents.contains(&found), "round {round}: it is no file's content");
        // It takes records again, and the next import replaces them.
        let partition = open(&engine, 0, 1);
        let before = partition.sequence().expect("a sequence");
        let mut deleted = record(&[]);
        deleted.writes.delete("default", "after");
        assert_eq!(partition.commit(record(&[("after", "1")])).wait(), Ok(before.next()));
        partition.commit(deleted).wait().expect("it is committed");
        assert!(before >= Sequence(30));
    }
    assert!(was_there, "no import was finished in {ROUNDS} rounds");
}
