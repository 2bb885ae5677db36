//! One seed: several lives of an engine, and what ends each of them.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use brittle_disk::{BrittleDisk, Disk, Image, SyncRule};
use hvm_types::{Epoch, ReplicaId};

use super::gate::Gate;
use super::model::{Call, Model, Said, Timed, Transfer, WINDOW, apply};
use super::purge_is_done;
use crate::state::shared::tests::world::World;
use crate::state::{
    CommitError, CommitFuture, LocalConfig, LocalEngine, OpenError, PartitionState, StartError, StateEngine,
};

const PARTITIONS: usize = 3;
const LIVES: u64 = 4;
const STEPS: u64 = 12;
const ACCOUNTS: [&str; 4] = ["anna", "bert", "cleo", "dora"];
/// Changes and syncs of the disk that a life with all its steps makes, about.
const CHANGES: u64 = 120;
/// The database's journals end with this.
const JOURNAL: &str = ".jnl";

/// A mounted disk with an empty engine's state, for many seeds.
pub(super) struct Bench {
    brittle: BrittleDisk,
    place: tempfile::TempDir,
    started: Image,
}

impl Bench {
    pub(super) fn new() -> Self {
        let place = tempfile::tempdir().expect("a place to mount at");
        let brittle = BrittleDisk::mount(place.path()).expect("mounting needs /dev/fuse and root");
        let directory = place.path().join("state");
        drop(LocalEngine::start(LocalConfig::new(&directory)).expect("the engine starts"));
        let started = brittle.disk().image();
        Self { brittle, place, started }
    }

    fn directory(&self) -> PathBuf {
        self.place.path().join("state")
    }
}

/// What came of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outcome {
    /// The rule that was broken, if one was.
    pub(super) broken: Option<String>,
    pub(super) trace: u64,
    pub(super) committed: u64,
    /// Calls without an answer.
    pub(super) unknown: u64,
    /// Changes and pages that cuts took.
    pub(super) lost: usize,
}

/// Why a run ends early: the rule that was broken.
type Broken = String;

struct Handle {
    /// Which of the partitions that had this name one after the other.
    incarnation: u64,
    state: Arc<dyn PartitionState>,
}

/// What is known of one partition.
#[derive(Default)]
struct Known {
    /// What it may be: the last that was certain, and after each call since then that was not answered.
    may_be: Vec<Option<Timed>>,
    /// Whether a call was not answered.
    is_uncertain: bool,
    incarnation: u64,
    keys: BTreeSet<String>,
    handles: Vec<Handle>,
}

struct Simulation<'a> {
    bench: &'a Bench,
    world: World,
    gate: Gate,
    config: LocalConfig,
    known: Vec<Known>,
    now: u64,
    outcome: Outcome,
    /// Syncs that had failed when this life began.
    failed: usize,
}

/// Runs one seed to its end, with what `plant` makes of the configuration.
pub(super) fn run(seed: u64, bench: &Bench, plant: &dyn Fn(&mut LocalConfig)) -> Outcome {
    let disk = bench.brittle.disk();
    disk.go_on();
    disk.rule(SyncRule::Pass);
    disk.restore(&bench.started);
    let gate = Gate::open();
    let (window, free_space) = (WINDOW, gate.free_space());
    let mut config = LocalConfig { window, free_space, ..LocalConfig::new(bench.directory()) };
    plant(&mut config);
    let known = || Known { may_be: vec![None], ..Known::default() };
    let mut simulation = Simulation {
        bench,
        world: World::new(seed),
        gate,
        config,
        known: (0..PARTITIONS).map(|_| known()).collect(),
        now: 1_800_000_000_000,
        outcome: Outcome { broken: None, trace: 0, committed: 0, unknown: 0, lost: 0 },
        failed: disk.failed(),
    };
    let result = simulation.lives();
    simulation.outcome.broken = result.err();
    simulation.outcome.trace = simulation.world.trace();
    simulation.outcome
}

fn id(partition: usize) -> ReplicaId {
    format!("ledger/accounts/{partition}").parse().expect("a valid id")
}

impl Simulation<'_> {
    fn lives(&mut self) -> Result<(), Broken> {
        let disk = self.bench.brittle.disk().clone();
        for _ in 0..LIVES {
            self.failed = disk.failed();
            match self.world.below(8) {
                0..5 => disk.stop_after(self.world.below(CHANGES)),
                5 => disk.rule(SyncRule::FailOnce(JOURNAL.to_owned())),
                _ => {}
            }
            let end = self.life();
            self.known.iter_mut().for_each(|known| known.handles.clear());
            disk.rule(SyncRule::Pass);
            disk.go_on();
            end?;
            if self.world.below(3) > 0 {
                self.cut_power(&disk);
            }
        }
        self.failed = disk.failed();
        self.life()?;
        self.known.iter_mut().for_each(|known| known.handles.clear());
        self.cut_power(&disk);
        self.life()
    }

    fn cut_power(&mut self, disk: &Disk) {
        let world = &self.world;
        let cut = disk
            .cut_power(&mut |limit| usize::try_from(world.below(limit as u64)).expect("below a small limit"));
        self.outcome.lost += cut.changes.1 + cut.pages.1 + cut.torn;
        self.world.note(&format!("the power is cut: {cut:?}"));
    }

    /// One life of the engine, until its steps are over or the disk stops.
    fn life(&mut self) -> Result<(), Broken> {
        let engine = match LocalEngine::start(self.config.clone()) {
            Ok(engine) => engine,
            Err(error @ StartError::Corrupt { .. }) => return Err(error.to_string()),
            Err(error) => return self.excuse(&format!("the engine does not start: {error}")),
        };
        self.wait_for_purge(&engine);
        self.check_all(&engine)?;
        for _ in 0..STEPS {
            self.now += self.world.below(4_000);
            let is_known = match self.world.below(10) {
                0..5 => self.commit_one()?,
                5..7 => self.commit_burst()?,
                7 => self.open(&engine)?,
                8 if self.world.one_in(3) => self.remove(&engine)?,
                8 => self.look()?,
                _ => self.close(),
            };
            if !is_known {
                break;
            }
        }
        Ok(())
    }

    /// An engine may refuse work only where its disk did.
    fn excuse(&self, what: &str) -> Result<(), Broken> {
        let disk = self.bench.brittle.disk();
        let is_excused = disk.is_stopped() || disk.failed() > self.failed;
        if is_excused { Ok(()) } else { Err(format!("without a reason: {what}")) }
    }

    fn pick<T>(&self, from: &[T]) -> usize {
        usize::try_from(self.world.below(from.len() as u64)).expect("an index")
    }

    /// A transfer through some handle, mostly the newest one. `None` where there is none.
    fn transfer(&mut self, is_plain: bool) -> Option<(usize, Arc<dyn PartitionState>, Transfer)> {
        let with_handle: Vec<usize> =
            (0..PARTITIONS).filter(|partition| !self.known[*partition].handles.is_empty()).collect();
        if with_handle.is_empty() {
            return None;
        }
        let partition = with_handle[self.pick(&with_handle)];
        let handles = &self.known[partition].handles;
        let is_stale = !is_plain && self.world.one_in(4);
        let handle = &handles[if is_stale { self.pick(handles) } else { handles.len() - 1 }];
        let state = Arc::clone(&handle.state);
        let from = self.pick(&ACCOUNTS);
        let to = (from + 1 + self.pick(&ACCOUNTS[1..])) % ACCOUNTS.len();
        let transfer = Transfer {
            epoch: state.epoch(),
            is_gone: handle.incarnation != self.known[partition].incarnation,
            accounts: [ACCOUNTS[from], ACCOUNTS[to]],
            amount: i64::try_from(1 + self.world.below(3)).expect("small"),
            key: (!is_plain && self.world.below(3) > 0).then(|| format!("key-{}", self.world.below(9))),
            unix_millis: self.now,
        };
        self.known[partition].keys.extend(transfer.key.clone());
        Some((partition, state, transfer))
    }

    /// Queues a transfer and says what it must be answered, unless the disk fails.
    fn queue(&mut self, chosen: (usize, Arc<dyn PartitionState>, Transfer)) -> Queued {
        let (partition, state, transfer) = chosen;
        let mut after = self.newest(partition).clone();
        let empty = Timed::empty(transfer.epoch);
        let record = after.as_ref().unwrap_or(&empty).record(&transfer);
        let call = Call::Commit(transfer);
        let expected = apply(&mut after, &call);
        self.known[partition].may_be.push(after);
        Queued { partition, call, expected, future: state.commit(record) }
    }

    fn newest(&self, partition: usize) -> &Option<Timed> {
        self.known[partition].may_be.last().expect("it may always be something")
    }

    fn commit_one(&mut self) -> Result<bool, Broken> {
        let Some(chosen) = self.transfer(false) else { return Ok(true) };
        let queued = self.queue(chosen);
        self.answered(vec![queued])
    }

    /// One record alone, and several that are queued while it is written.
    fn commit_burst(&mut self) -> Result<bool, Broken> {
        let Some(first) = self.transfer(true) else { return Ok(true) };
        if first.2.is_gone
            || self.newest(first.0).as_ref().map(|timed| timed.model.epoch) != Some(first.2.epoch)
        {
            return Ok(true);
        }
        let gate = self.gate.clone();
        let this = RefCell::new(self);
        let (first, rest) = gate.hold(
            || this.borrow_mut().queue(first),
            || {
                let mut this = this.borrow_mut();
                let mut rest = Vec::new();
                for _ in 0..=this.world.below(5) {
                    rest.extend(this.transfer(false).map(|chosen| this.queue(chosen)));
                }
                rest
            },
        );
        this.into_inner().answered(std::iter::once(first).chain(rest).collect())
    }

    /// Compares answers with what they must be. `false` where some are missing, which the disk must have caused.
    fn answered(&mut self, calls: Vec<Queued>) -> Result<bool, Broken> {
        let mut is_known = true;
        for Queued { partition, call, expected, future } in calls {
            let said = match future.wait() {
                Ok(sequence) => Some(Said::Sequence(sequence)),
                Err(CommitError::AlreadyApplied) => Some(Said::AlreadyApplied),
                Err(CommitError::Fenced { newest }) => Some(Said::Fenced(newest)),
                Err(CommitError::Removed) => Some(Said::Removed),
                Err(error) => {
                    self.excuse(&error.to_string())?;
                    None
                }
            };
            is_known &= self.said(partition, &call, expected, said)?;
        }
        Ok(is_known)
    }

    /// Takes note of an answer.
    fn said(
        &mut self,
        partition: usize,
        call: &Call,
        expected: Said,
        said: Option<Said>,
    ) -> Result<bool, Broken> {
        self.world.note(&format!("{partition}: {call:?}: {said:?}"));
        let known = &mut self.known[partition];
        let Some(said) = said else {
            self.outcome.unknown += 1;
            known.is_uncertain = true;
            return Ok(false);
        };
        if said != expected {
            return Err(format!("{partition}: {call:?}: {said:?}, not {expected:?}"));
        }
        if let Said::Sequence(_) = said {
            self.outcome.committed += 1;
            if known.is_uncertain {
                return Err(format!("{partition}: {call:?} was committed after one that may not be"));
            }
        }
        if !known.is_uncertain {
            known.may_be.remove(0);
        }
        Ok(true)
    }

    fn open(&mut self, engine: &LocalEngine) -> Result<bool, Broken> {
        let partition = self.pick(&self.known);
        let epoch = self.newest(partition).as_ref().map_or(Epoch(0), |timed| timed.model.epoch);
        let epoch = match self.world.below(4) {
            0 => Epoch(epoch.0.saturating_sub(1).max(1)),
            1 => Epoch(epoch.0.max(1)),
            _ => epoch.next(),
        };
        let call = Call::Open(epoch);
        let mut after = self.newest(partition).clone();
        let expected = apply(&mut after, &call);
        self.known[partition].may_be.push(after);
        let said = match engine.open(&id(partition), epoch) {
            Ok(state) => {
                let incarnation = self.known[partition].incarnation;
                self.known[partition].handles.push(Handle { incarnation, state });
                Some(Said::Done)
            }
            Err(OpenError::Fenced { newest, .. }) => Some(Said::Fenced(newest)),
            Err(error) => {
                self.excuse(&error.to_string())?;
                None
            }
        };
        self.said(partition, &call, expected, said)
    }

    fn remove(&mut self, engine: &LocalEngine) -> Result<bool, Broken> {
        let partition = self.pick(&self.known);
        let mut after = self.newest(partition).clone();
        let expected = apply(&mut after, &Call::Remove);
        self.known[partition].may_be.push(after);
        self.known[partition].incarnation += 1;
        let said = match engine.remove(&id(partition)) {
            Ok(()) => Some(Said::Done),
            Err(error) => {
                self.excuse(&error.to_string())?;
                None
            }
        };
        let is_known = self.said(partition, &Call::Remove, expected, said)?;
        self.wait_for_purge(engine);
        Ok(is_known)
    }

    /// What is purged in the background changes the disk: nothing else may at that time, or the seed would not give
    /// the same run again.
    fn wait_for_purge(&self, engine: &LocalEngine) {
        while !purge_is_done(engine) && self.excuse("purging").is_err() {
            std::thread::yield_now();
        }
    }

    /// A partition's handles go, as when it hibernates.
    fn close(&mut self) -> bool {
        let partition = self.pick(&self.known);
        self.known[partition].handles.clear();
        true
    }

    /// What readers see is what was answered.
    fn look(&self) -> Result<bool, Broken> {
        for (partition, known) in self.known.iter().enumerate() {
            let Some(handle) = known.handles.last() else { continue };
            let Some(timed) = self.newest(partition) else { continue };
            if handle.incarnation != known.incarnation || handle.state.epoch() != timed.model.epoch {
                continue;
            }
            let found = Model::read(&*handle.state, known.keys.iter());
            if found.as_ref() != Ok(&timed.model) {
                return Err(format!("{partition}: found {found:?}, not {:?}", timed.model));
            }
        }
        Ok(true)
    }

    /// After a start: each partition is what it was, and of what was not answered has a beginning.
    fn check_all(&mut self, engine: &LocalEngine) -> Result<(), Broken> {
        let listed = engine.partitions().map_err(|error| error.to_string())?;
        for partition in 0..PARTITIONS {
            let epoch = listed.iter().find(|info| info.id == id(partition)).map(|info| info.epoch);
            let known = &mut self.known[partition];
            let found = match epoch {
                None => None,
                // Opening with the epoch that it has writes nothing.
                Some(epoch) => {
                    let state = engine.open(&id(partition), epoch).map_err(|error| error.to_string())?;
                    let found = Model::read(&*state, known.keys.iter()).map_err(|error| error.to_string())?;
                    let incarnation = known.incarnation;
                    known.handles.push(Handle { incarnation, state });
                    Some(found)
                }
            };
            let is = |may_be: &&Option<Timed>| may_be.as_ref().map(|timed| &timed.model) == found.as_ref();
            let Some(which) = known.may_be.iter().find(is).cloned() else {
                let may_be: Vec<_> = known.may_be.iter().flatten().map(|timed| &timed.model).collect();
                return Err(format!("{partition}: found {found:#?} after a start, not one of {may_be:#?}"));
            };
            (known.may_be, known.is_uncertain) = (vec![which], false);
            self.world.note(&format!("{partition} starts at {found:?}"));
        }
        Ok(())
    }
}

/// A record that is on its way.
struct Queued {
    partition: usize,
    call: Call,
    expected: Said,
    future: CommitFuture,
}
