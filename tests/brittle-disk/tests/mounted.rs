//! The disk as processes see it: what was synced stays, and the rest may go.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use brittle_disk::{BrittleDisk, Cut, SyncRule};

struct Bed {
    brittle: BrittleDisk,
    place: tempfile::TempDir,
}

impl Bed {
    fn new() -> Self {
        let place = tempfile::tempdir().expect("a place to mount at");
        let brittle = BrittleDisk::mount(place.path()).expect("mounting needs /dev/fuse and root");
        Self { brittle, place }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    /// A cut that keeps nothing of what was not synced.
    fn cut(&self) -> Cut {
        self.brittle.disk().cut_power(&mut |_| 0)
    }

    /// A cut whose choices are the numbers in turn, and 0 afterwards.
    fn cut_with(&self, choices: &[usize]) -> Cut {
        let mut choices = choices.iter();
        self.brittle.disk().cut_power(&mut |limit| choices.next().copied().unwrap_or(0).min(limit - 1))
    }
}

fn write_synced(path: &Path, bytes: &[u8]) {
    let mut file = File::create(path).expect("a file");
    file.write_all(bytes).expect("written");
    file.sync_all().expect("synced");
}

#[test]
fn synced_bytes_stay_and_others_go() {
    let bed = Bed::new();
    write_synced(&bed.path("synced"), b"first");
    let mut file = File::options().append(true).open(bed.path("synced")).expect("it is there");
    file.write_all(b" second").expect("written");
    fs::write(bed.path("other"), b"never synced").expect("written");
    assert_eq!(fs::read(bed.path("synced")).expect("read"), b"first second", "processes see it all");
    drop(file);
    let cut = bed.cut();
    assert_eq!((cut.changes, cut.pages), ((1, 1), (2, 2)));
    assert_eq!(fs::read(bed.path("synced")).expect("read"), b"first");
    assert!(!bed.path("other").exists());
    assert_eq!(bed.cut(), Cut::default(), "nothing is left to lose");
}

#[test]
fn names_reach_the_disk_in_their_order_and_bytes_in_none() {
    let bed = Bed::new();
    write_synced(&bed.path("old"), b"old");
    fs::write(bed.path("new"), b"new").expect("written");
    fs::rename(bed.path("new"), bed.path("old")).expect("replaced");
    // Both changes are kept and the bytes are not: a replaced file that was not synced is empty.
    bed.cut_with(&[1]);
    assert_eq!(fs::read(bed.path("old")).expect("read"), b"");

    write_synced(&bed.path("new"), b"new");
    fs::rename(bed.path("new"), bed.path("old")).expect("replaced");
    File::open(bed.place.path()).and_then(|directory| directory.sync_all()).expect("synced");
    bed.cut();
    assert_eq!(fs::read(bed.path("old")).expect("read"), b"new", "the directory was synced");
    assert!(!bed.path("new").exists());
}

#[test]
fn a_page_is_torn_by_sectors_and_a_hole_reads_as_zeros() {
    let bed = Bed::new();
    let path = bed.path("file");
    write_synced(&path, &[b'a'; 4096]);
    let mut file = File::options().write(true).open(&path).expect("it is there");
    file.write_all(&[b'b'; 3 * 4096]).expect("written");
    drop(file);
    // No changes of names; each page has its own fate: the first is torn, the second is lost, the third is there.
    let first = [2, 1, 0, 0, 0, 0, 0, 0, 1];
    let choices: Vec<usize> = [0, 2].into_iter().chain(first).chain([0, 1]).collect();
    let cut = bed.cut_with(&choices);
    assert_eq!((cut.pages, cut.torn), ((3, 1), 1));
    let bytes = fs::read(&path).expect("read");
    assert_eq!(bytes.len(), 3 * 4096);
    assert_eq!((bytes[0], bytes[511], bytes[512], bytes[3583], bytes[3584]), (b'b', b'b', b'a', b'a', b'b'));
    assert!(bytes[4096..8192].iter().all(|byte| *byte == 0));
    assert!(bytes[8192..].iter().all(|byte| *byte == b'b'));
}

#[test]
fn what_a_failed_sync_lost_is_seen_until_the_power_is_cut() {
    let bed = Bed::new();
    let path = bed.path("file");
    write_synced(&path, b"one");
    let mut file = File::options().append(true).read(true).open(&path).expect("it is there");
    bed.brittle.disk().rule(SyncRule::FailOnce("file".to_owned()));
    file.write_all(b" two").expect("written");
    let error = file.sync_data().expect_err("it fails");
    assert_eq!(error.raw_os_error(), Some(5), "EIO");
    file.sync_all().expect("the next one passes, and brings nothing");
    let mut text = String::new();
    file.seek(SeekFrom::Start(0)).expect("sought");
    file.read_to_string(&mut text).expect("read");
    assert_eq!(text, "one two");
    drop(file);
    bed.cut();
    let bytes = fs::read(&path).expect("read");
    assert!(bytes.starts_with(b"one") && !bytes.ends_with(b"two"), "{bytes:?}");
}

#[test]
fn a_held_sync_waits_and_hinders_nobody() {
    let bed = Bed::new();
    let file = File::create(bed.path("held")).expect("a file");
    bed.brittle.disk().rule(SyncRule::Hold("held".to_owned()));
    let (sender, done) = mpsc::sync_channel(1);
    let sync = std::thread::spawn(move || {
        let result = file.sync_all();
        sender.send(()).expect("somebody listens");
        result
    });
    while bed.brittle.disk().held() == 0 {
        std::thread::yield_now();
    }
    write_synced(&bed.path("other"), b"not hindered");
    assert_eq!(done.try_recv(), Err(mpsc::TryRecvError::Empty));
    bed.brittle.disk().let_go();
    assert!(sync.join().expect("it ends").is_ok());
}

#[test]
fn files_and_directories_behave_as_elsewhere() {
    let bed = Bed::new();
    let deep = bed.path("a/b");
    fs::create_dir_all(&deep).expect("directories");
    for number in 0..300 {
        fs::write(deep.join(format!("file-{number}")), number.to_string()).expect("written");
    }
    assert_eq!(fs::read_dir(&deep).expect("a list").count(), 300);
    assert!(fs::remove_dir(&deep).is_err(), "it is not empty");
    assert!(File::create_new(deep.join("file-7")).is_err(), "it is there");
    let file = File::options().write(true).open(deep.join("file-7")).expect("it is there");
    file.set_len(1 << 26).expect("long");
    assert_eq!(file.metadata().expect("metadata").len(), 1 << 26);
    file.set_len(0).expect("short");
    assert_eq!(fs::read(deep.join("file-7")).expect("read"), b"");
    fs::rename(&deep, bed.path("c")).expect("moved");
    assert_eq!(fs::read(bed.path("c/file-299")).expect("read"), b"299");
    fs::remove_dir_all(bed.path("c")).expect("removed");
    assert_eq!(fs::read_dir(bed.path("a")).expect("a list").count(), 0);
}

#[test]
fn after_the_chosen_change_nothing_passes_until_a_cut_or_the_end_of_the_process() {
    let bed = Bed::new();
    let disk = bed.brittle.disk();
    write_synced(&bed.path("synced"), b"first");
    let before = disk.image();
    // A file, its bytes; the sync fails.
    disk.stop_after(2);
    let mut file = File::create(bed.path("other")).expect("the first change");
    file.write_all(b"second").expect("the second");
    assert!(!disk.is_stopped());
    assert!(file.sync_all().is_err());
    assert!(disk.is_stopped());
    assert!(file.write_all(b"third").is_err());
    assert!(fs::remove_file(bed.path("synced")).is_err());
    assert_eq!(fs::read(bed.path("other")).expect("read"), b"second", "it can be read");
    drop(file);
    disk.go_on();
    assert_eq!(fs::read(bed.path("other")).expect("read"), b"second", "the cache outlives the process");
    disk.stop_after(0);
    assert!(File::create(bed.path("more")).is_err());
    bed.cut();
    assert!(!bed.path("other").exists());
    fs::remove_file(bed.path("synced")).expect("changes pass after a cut");
    disk.restore(&before);
    assert_eq!(fs::read(bed.path("synced")).expect("read"), b"first");
}
