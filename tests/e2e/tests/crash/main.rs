//! `hvm dev` killed with SIGKILL again and again while clients move money in the ledger: what it acknowledged is there
//! afterwards, once, and what it did not acknowledge is there wholly or not at all.
//!
//! Several servers run side by side, each on a directory of its own ([`lane`]). In each of its lives a server is looked
//! at, used by a crowd of clients ([`crowd`]) and killed at a point that the seed chooses ([`moment`]): while it
//! starts, while it recovers, idle, or in the middle of commands. What the clients sent and what they were answered
//! is kept ([`scene`]) and judged after each kill and after each start: the answers must have an order in which a
//! simple book ([`book`]) gives the same ones ([`order`]). That is linearizability, with the idempotency keys as a
//! part of the book. So a transfer that was acknowledged and is gone, was applied twice or half, or was shown to a
//! query and is gone, leaves answers that have no order. Beside it stand simple rules that need no search: the sum
//! over all accounts is zero, an answer that is asked for again is the same to the byte, and no partition's epoch
//! or sequence goes back.
//!
//! SIGKILL keeps what the process handed to the kernel. The same is done on a disk that then loses or tears what was
//! not synced ([`brittle_disk`]), as a power cut does.
//!
//! `CRASH_SEED` repeats the choices of a run, though not its timing. `CRASH_KILLS` says how many.

#![expect(clippy::print_stderr, reason = "seeds and counts for people")]

mod book;
mod crowd;
mod directory;
mod lane;
mod moment;
mod numbers;
mod order;
mod order_cases;
mod positions;
mod scene;
mod tally;
mod wire;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use brittle_disk::{BrittleDisk, SyncRule};
use e2e::{Daemon, Role, Workshop};

use lane::{Finding, Lane};
use numbers::Numbers;
use tally::Tally;
use wire::Fault;

/// Servers side by side.
const LANES: usize = 3;
const KILLS: usize = 200;
const KILLS_LONG: usize = 3000;
const CUTS: usize = 60;
const CUTS_LONG: usize = 1000;
/// The files of the state's database.
const DATABASE: &str = "agent/state/fjall";
/// Within so many kills a planted fault has to be found.
const KILLS_TO_FIND: usize = 40;

/// A workshop with a directory in which the ledger is deployed, for all servers to start from.
struct Bed {
    workshop: Workshop,
    deployed: PathBuf,
}

impl Bed {
    fn new() -> Self {
        let workshop = Workshop::new();
        let file = workshop.ledger();
        let deployed = workshop.path("deployed");
        let server = Daemon::start(&Role::Dev { trust: workshop.trust() }, &deployed);
        server.deploy(&file);
        assert_eq!(server.terminate(), 0, "SIGTERM drains and ends with 0");
        Self { workshop, deployed }
    }

    fn lane(&self, name: &str, numbers: Numbers, fault: Fault) -> Lane {
        let data = self.workshop.path(name);
        directory::copy(&self.deployed, &data);
        Lane::new(Role::Dev { trust: self.workshop.trust() }, data, numbers, fault)
    }

    /// On a disk of its own, whose power is cut after each kill.
    fn brittle_lane(&self, name: &str, numbers: Numbers, rule: SyncRule) -> Lane {
        let data = self.workshop.path(name);
        std::fs::create_dir(&data).expect("a place to mount at");
        let disk =
            BrittleDisk::mount(&data).expect("this test mounts with FUSE and needs /dev/fuse and root");
        let lane = self.lane(name, numbers, Fault::None);
        disk.disk().sync_all();
        disk.disk().rule(rule);
        lane.with_power_cuts(disk)
    }
}

fn number_from(variable: &str) -> Option<u64> {
    std::env::var(variable)
        .ok()
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{variable} is no number")))
}

fn seed() -> u64 {
    let seed = number_from("CRASH_SEED").unwrap_or_else(|| u64::from(std::process::id()) ^ 0xc4a5);
    eprintln!("CRASH_SEED={seed}");
    seed
}

fn kills(ordinary: usize, long: usize) -> usize {
    let usual = if std::env::var_os("HVM_LONG").is_some() { long } else { ordinary };
    number_from("CRASH_KILLS").map_or(usual, |kills| usize::try_from(kills).expect("a count"))
}

/// Runs lanes side by side, made by `lane` from their names and numbers.
fn run_lanes(kills: usize, mut numbers: Numbers, lane: impl Fn(&str, Numbers) -> Lane + Sync) {
    let started = Instant::now();
    let stop = AtomicBool::new(false);
    let results: Vec<Result<Tally, Finding>> = std::thread::scope(|scope| {
        let run = |index: usize| {
            let (lane, stop, numbers) = (&lane, &stop, numbers.fork());
            scope.spawn(move || {
                let share = kills / LANES + usize::from(index < kills % LANES);
                let lane = lane(&format!("lane{index}"), numbers);
                lane.run(share, stop).inspect_err(|_| stop.store(true, Ordering::Relaxed))
            })
        };
        let lanes: Vec<_> = (0..LANES).map(run).collect();
        lanes.into_iter().map(|lane| lane.join().expect("a lane ends with what it found")).collect()
    });
    let mut total = Tally::default();
    for result in results {
        match result {
            Ok(tally) => total.add(&tally),
            Err(Finding { kills, what }) => panic!("after {kills} kills of this server: {what}"),
        }
    }
    eprintln!("{total}\nin {:.0?}", started.elapsed());
    assert_eq!(total.kills(), kills);
}

#[test]
fn what_was_acknowledged_survives_every_kill_exactly_once() {
    let numbers = Numbers::new(seed());
    let bed = Bed::new();
    run_lanes(kills(KILLS, KILLS_LONG), numbers, |name, numbers| bed.lane(name, numbers, Fault::None));
}

#[test]
fn what_was_acknowledged_survives_every_power_cut_exactly_once() {
    let numbers = Numbers::new(seed());
    let bed = Bed::new();
    run_lanes(kills(CUTS, CUTS_LONG), numbers, |name, numbers| {
        bed.brittle_lane(name, numbers, SyncRule::Pass)
    });
}

#[test]
fn a_fault_that_is_planted_is_found() {
    let mut numbers = Numbers::new(seed());
    let bed = Bed::new();
    for (name, fault, words) in [
        ("keys", Fault::ForgottenKeys, ["gets another answer", "no order of the calls"]),
        ("stale", Fault::StaleReads, ["no order of the calls", "no order of the calls"]),
        ("back", Fault::DirectoryPutBack, ["no order of the calls", "(epoch, sequence)"]),
        // The engine itself finds some of it: then the server does not start.
        ("lie", Fault::LyingDisk, ["no order of the calls", "does not serve"]),
    ] {
        let lane = match fault {
            Fault::LyingDisk => bed.brittle_lane(name, numbers.fork(), SyncRule::Lie(DATABASE.to_owned())),
            _ => bed.lane(name, numbers.fork(), fault),
        };
        let found = lane.run(KILLS_TO_FIND, &AtomicBool::new(false));
        let Err(Finding { kills, what }) = found else { panic!("{fault:?} was not found") };
        eprintln!("{fault:?} was found after {kills} kills: {what}");
        assert!(
            words.iter().any(|word| what.contains(word)),
            "{fault:?} was found as something else: {what}"
        );
    }
}
