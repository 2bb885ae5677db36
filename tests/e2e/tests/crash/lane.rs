//! One server on one directory: started, looked at, used and killed, again and again.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use brittle_disk::BrittleDisk;
use e2e::{Daemon, Heard, Role, Starting};
use tokio::runtime::{self, Runtime};
use tokio::task::LocalSet;

use crate::book::{Answer, Book};
use crate::crowd::Crowd;
use crate::directory;
use crate::moment::{Moment, Phase, has_the_state};
use crate::numbers::Numbers;
use crate::order::outcomes;
use crate::positions::Positions;
use crate::scene::{BOOKS, Scene};
use crate::tally::Tally;
use crate::wire::{Fault, Wire};

/// Between two looks at whether a server has the state's directory.
const LOOK: Duration = Duration::from_micros(300);
/// Longest time for that.
const LONGEST_START: Duration = Duration::from_secs(60);

/// Something that must not be, and when it was found.
#[derive(Debug)]
pub(crate) struct Finding {
    pub(crate) kills: usize,
    pub(crate) what: String,
}

/// A directory and what is known of it.
pub(crate) struct Lane {
    role: Role,
    data: PathBuf,
    name: String,
    fault: Fault,
    /// What the directory is on, where its power is cut after each kill.
    disk: Option<BrittleDisk>,
    numbers: Numbers,
    scene: Rc<RefCell<Scene>>,
    /// What each book may be, by all answers so far.
    books: Vec<BTreeSet<Book>>,
    positions: Positions,
    usual_start: Duration,
    has_answered: bool,
    /// Acknowledged transfers when the directory was kept, to be put back.
    kept_at: Option<usize>,
    executor: Rc<Runtime>,
}

impl Lane {
    /// On a directory with the ledger deployed.
    pub(crate) fn new(role: Role, data: PathBuf, mut numbers: Numbers, fault: Fault) -> Self {
        let executor = runtime::Builder::new_current_thread().enable_all().build().expect("an executor");
        Self {
            role,
            name: data.file_name().expect("a name").to_string_lossy().into_owned(),
            data,
            fault,
            disk: None,
            scene: Rc::new(RefCell::new(Scene::new(numbers.fork()))),
            numbers,
            books: vec![BTreeSet::from([Book::default()]); BOOKS],
            positions: Positions::default(),
            usual_start: Duration::from_millis(200),
            has_answered: false,
            kept_at: None,
            executor: Rc::new(executor),
        }
    }

    /// The same on a disk whose power is cut after each kill.
    pub(crate) fn with_power_cuts(mut self, disk: BrittleDisk) -> Self {
        self.disk = Some(disk);
        self
    }

    /// Kills the server so many times, and looks at everything once more at the end.
    pub(crate) fn run(mut self, kills: usize, stop: &AtomicBool) -> Result<Tally, Finding> {
        for kill in 0..kills {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            self.live_once().map_err(|what| Finding { kills: kill + 1, what })?;
            if self.fault == Fault::DirectoryPutBack {
                self.put_back();
            }
        }
        self.finish().map_err(|what| Finding { kills, what })?;
        Ok(self.scene.borrow().tally.clone())
    }

    /// From a start to a kill.
    fn live_once(&mut self) -> Result<(), String> {
        let moment = Moment::draw(&mut self.numbers);
        let Some((server, moment)) = self.start(moment)? else { return Ok(()) };
        let executor = self.executor.clone();
        executor.block_on(LocalSet::new().run_until(self.serve(server, moment)))
    }

    /// Starts the server. None where it was killed before it served.
    fn start(&mut self, moment: Moment) -> Result<Option<(Daemon, Moment)>, String> {
        let begun = Instant::now();
        let state = self.data.join("agent/state");
        let mut starting = Starting::spawn(&self.role, &self.data, &[]);
        let mut heard = Heard::Nothing;
        let patience = match moment {
            Moment::Start(percent) => self.usual_start * percent / 100,
            Moment::Recovery(percent) => {
                while heard == Heard::Nothing && !has_the_state(starting.pid(), &state) {
                    heard = starting.listen(LOOK);
                    assert!(begun.elapsed() < LONGEST_START, "the server does not open its state");
                }
                self.usual_start.saturating_sub(begun.elapsed()).max(self.usual_start / 4) * percent / 100
            }
            _ => LONGEST_START,
        };
        if heard == Heard::Nothing {
            heard = starting.listen(patience);
        }
        match (heard, moment) {
            (Heard::Ended, _) | (Heard::Nothing, Moment::Opening(_) | Moment::Load(..) | Moment::Idle(_)) => {
                return Err(starting.silence());
            }
            // It was faster than usual: killed before anything was asked.
            (Heard::Serving, Moment::Start(_) | Moment::Recovery(_)) => {
                return Ok(Some((starting.into_daemon(), Moment::Opening(0))));
            }
            (Heard::Serving, _) => {
                self.usual_start = begun.elapsed();
                return Ok(Some((starting.into_daemon(), moment)));
            }
            (Heard::Nothing, _) => {}
        }
        let phase = Phase::of_starting(starting.pid(), &state);
        starting.kill();
        self.count_kill(phase);
        Ok(None)
    }

    /// Looks at everything, lets the clients loose, and kills the server.
    async fn serve(&mut self, server: Daemon, moment: Moment) -> Result<(), String> {
        let wire = Rc::new(Wire::new(&server.ingress, &self.name, self.fault));
        let mut crowd;
        match moment {
            Moment::Start(_) | Moment::Recovery(_) => unreachable!("those end before it serves"),
            Moment::Opening(answers) => {
                self.plan_opening();
                crowd = Crowd::begin(&self.scene, &wire);
                crowd.until(|scene| scene.answered >= answers).await;
            }
            Moment::Load(acknowledged, looks) => {
                self.open(&wire, &server).await?;
                crowd = self.load(&wire);
                crowd.until(|scene| scene.acknowledged >= acknowledged).await;
                for _ in 0..looks {
                    tokio::task::yield_now().await;
                }
            }
            Moment::Idle(acknowledged) => {
                self.open(&wire, &server).await?;
                crowd = self.load(&wire);
                crowd.until(|scene| scene.acknowledged >= acknowledged).await;
                crowd.stop().await;
            }
        }
        let phase = {
            let scene = self.scene.borrow();
            self.has_answered = scene.answered > 0;
            Phase::of_serving(server.pid(), scene.commands_in_flight, scene.queries_in_flight)
        };
        server.kill();
        self.count_kill(phase);
        crowd.wait().await;
        let mut scene = self.scene.borrow_mut();
        scene.sort_open();
        scene.findings.first().map_or(Ok(()), |what| Err(what.clone()))
    }

    fn load(&self, wire: &Rc<Wire>) -> Crowd {
        self.scene.borrow_mut().under_load = true;
        Crowd::begin(&self.scene, wire)
    }

    fn plan_opening(&self) {
        let mut scene = self.scene.borrow_mut();
        scene.under_load = false;
        scene.plan_audit();
        scene.plan_retries();
    }

    /// Reads every book and every position and sends again what is open. Then nothing is open, and everything since the
    /// last time can be judged.
    async fn open(&mut self, wire: &Rc<Wire>, server: &Daemon) -> Result<(), String> {
        self.plan_opening();
        Crowd::begin(&self.scene, wire).wait().await;
        let (sums, transfers) = totals(&self.scene.borrow());
        self.judge()?;
        if let Some((partition, sum)) = sums.iter().find(|(_, sum)| **sum != 0) {
            return Err(format!("the sum over all accounts of {partition} is {sum}"));
        }
        self.positions.check(&server.api, &transfers).await
    }

    /// Judges what was asked since the last time, and keeps what the books may be now.
    fn judge(&mut self) -> Result<(), String> {
        let mut scene = self.scene.borrow_mut();
        if let Some(what) = scene.findings.first() {
            return Err(what.clone());
        }
        if let Some(order) = scene.open.values().next() {
            return Err(format!("a server that was not killed left {order:?} without an answer"));
        }
        for book in 0..BOOKS {
            let calls = std::mem::take(&mut scene.calls[book]);
            let ends =
                outcomes(&self.books[book], &calls).map_err(|error| format!("book {book}: {error}"))?;
            scene.tally.histories += 1;
            scene.tally.calls += calls.len();
            scene.tally.ends += ends.len();
            self.books[book] = ends;
        }
        Ok(())
    }

    fn count_kill(&mut self, phase: Phase) {
        let mut scene = self.scene.borrow_mut();
        *scene.tally.kills.entry(phase).or_default() += 1;
        scene.tally.in_a_row += usize::from(!self.has_answered);
        self.has_answered = false;
        if let Some(disk) = &self.disk {
            let cut = disk.disk().cut_power(&mut |limit| self.numbers.below(limit));
            scene.tally.cuts.push(cut);
        }
    }

    /// The directory is kept after the first kill, and put back after another one with acknowledgements in between.
    fn put_back(&mut self) {
        let kept = self.data.with_extension("kept");
        let acknowledged = self.scene.borrow().tally.acknowledged;
        match self.kept_at {
            None => {
                directory::copy(&self.data, &kept);
                self.kept_at = Some(acknowledged);
            }
            Some(before) if acknowledged > before && kept.exists() => {
                std::fs::remove_dir_all(&self.data).expect("the directory goes");
                std::fs::rename(&kept, &self.data).expect("the kept one takes its place");
            }
            Some(_) => {}
        }
    }

    /// No kill: everything is sent again that is remembered, and the server stops by itself.
    fn finish(&mut self) -> Result<(), String> {
        let (server, _) =
            self.start(Moment::Idle(0))?.ok_or("the server was not killed and does not serve")?;
        let executor = self.executor.clone();
        let last = async {
            let wire = Rc::new(Wire::new(&server.ingress, &self.name, self.fault));
            self.open(&wire, &server).await?;
            self.scene.borrow_mut().plan_repeats();
            Crowd::begin(&self.scene, &wire).wait().await;
            self.open(&wire, &server).await
        };
        executor.block_on(LocalSet::new().run_until(last))?;
        let code = server.terminate();
        let log = std::fs::read_to_string(self.data.with_extension("log")).expect("a log");
        let complaint = log.lines().find(|line| line.contains(" ERROR ") || line.contains("panicked"));
        match (code, complaint) {
            (0, None) => Ok(()),
            (0, Some(line)) => Err(format!("the server complained: {line}")),
            (code, _) => Err(format!("SIGTERM ended it with {code}")),
        }
    }
}

/// By partition: the sum over all accounts, and how many transfers there were, by the newest answers.
fn totals(scene: &Scene) -> (BTreeMap<String, i128>, BTreeMap<String, i128>) {
    let (mut sums, mut transfers) = (BTreeMap::new(), BTreeMap::new());
    for (calls, partition) in scene.calls.iter().zip(&scene.partitions) {
        let partition = partition.clone().unwrap_or_default();
        let newest = |of: fn(Answer) -> Option<i128>| calls.iter().rev().find_map(|call| of(call.answer?));
        let sum = newest(|answer| match answer {
            Answer::Listing(balances) => {
                Some(balances.iter().flatten().map(|balance| i128::from(*balance)).sum())
            }
            _ => None,
        });
        let count = newest(|answer| match answer {
            Answer::Sum { transfers, .. } => Some(i128::from(transfers)),
            _ => None,
        });
        *sums.entry(partition.clone()).or_insert(0) += sum.unwrap_or(0);
        *transfers.entry(partition).or_insert(0) += count.unwrap_or(0);
    }
    (sums, transfers)
}
