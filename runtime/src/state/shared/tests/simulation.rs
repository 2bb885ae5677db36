//! The simulation itself: hosts, clients, and what goes wrong.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hvm_types::{Epoch, ReplicaId};
use tokio::sync::{Notify, oneshot};

use super::history::History;
use super::store::FakeStore;
use super::toy::{Commit, Toy};
use super::world::{Executor, Process, World};
use crate::state::shared::core::{Asked, Core, Inbox, Settings, Want, Work};
use crate::state::shared::objects::{Objects, Patience};
use crate::state::shared::surroundings::Surroundings;
use crate::state::{CommitError, OpenError};

const HOSTS: u64 = 3;
const PARTITIONS: u32 = 3;
const STEPS: u64 = 30;
/// Clients, and what makes things go wrong.
const OUTSIDE: Process = Process(0);

/// What came of a run.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) broken: Vec<String>,
    pub(super) trace: u64,
    pub(super) commits: u64,
    pub(super) openings: usize,
    /// What is in the store at the end.
    pub(super) paths: Vec<String>,
}

/// One engine, seen from outside.
#[derive(Clone)]
struct Engine {
    process: Process,
    queue: Rc<RefCell<VecDeque<Work<Toy>>>>,
    notify: Arc<Notify>,
}

impl Engine {
    fn send(&self, work: Work<Toy>) {
        self.queue.borrow_mut().push_back(work);
        self.notify.notify_one();
    }
}

struct Simulation {
    world: World,
    executor: Executor,
    store: FakeStore,
    history: History,
    plant: Plant,
    next: Cell<u64>,
    engines: RefCell<Vec<Engine>>,
    /// The newest epoch of each partition, and the host that it was given to.
    owners: RefCell<BTreeMap<ReplicaId, (Epoch, u64)>>,
    /// Keys of each partition, to be used again.
    keys: RefCell<BTreeMap<ReplicaId, Vec<String>>>,
}

/// Changes an engine before it starts.
pub(super) type Plant = fn(&mut Core<Toy>);

/// Runs one seed to its end.
pub(super) fn run(seed: u64, plant: Plant) -> Outcome {
    let world = World::new(seed);
    let simulation = Rc::new(Simulation {
        store: FakeStore::new(world.clone()),
        world,
        executor: Executor::default(),
        history: History::default(),
        plant,
        next: Cell::new(1),
        engines: RefCell::default(),
        owners: RefCell::default(),
        keys: RefCell::default(),
    });
    let story = Rc::clone(&simulation).story();
    simulation.executor.spawn(OUTSIDE, story);
    if !simulation.executor.run(&simulation.world) {
        simulation.history.damage(&partition(0), "the run does not end");
    }
    let (commits, openings) = simulation.history.counts();
    Outcome {
        broken: simulation.history.broken(),
        trace: simulation.world.trace(),
        commits,
        openings,
        paths: simulation.store.paths(),
    }
}

fn partition(index: u32) -> ReplicaId {
    format!("ledger/accounts/{index}").parse().expect("a valid id")
}

impl Simulation {
    fn unique(&self) -> u64 {
        self.next.set(self.next.get() + 1);
        self.next.get()
    }

    async fn pause(&self, below: u64) {
        self.world.sleep(Duration::from_millis(self.world.below(below))).await;
    }

    fn start(&self, host: u64) -> Engine {
        let queue: Rc<RefCell<VecDeque<Work<Toy>>>> = Rc::default();
        let notify = Arc::new(Notify::new());
        let source = Rc::clone(&queue);
        let inbox =
            Inbox { receive: Box::new(move || source.borrow_mut().pop_front()), notify: Arc::clone(&notify) };
        let patience = Patience { attempt: Duration::from_millis(2500), attempts: 4 };
        let objects = Objects::new(Arc::new(self.store.clone()), Arc::new(self.world.clone()), patience);
        let settings = Settings { batch_bytes: 1000, upkeep_bytes: 400 };
        let host = format!("host-{host}").parse().expect("a valid host");
        let mut core = Core::new(objects, host, settings, inbox, Toy::default());
        (self.plant)(&mut core);
        let process = Process(self.unique());
        self.executor.spawn(process, async move { core.run().await });
        Engine { process, queue, notify }
    }

    fn engine(&self, host: u64) -> Engine {
        self.engines.borrow()[usize::try_from(host).expect("small")].clone()
    }

    /// Begins a new engine of a host. The old one is gone, or goes on.
    fn restart(&self, host: u64) -> Engine {
        let index = usize::try_from(host).expect("small");
        let engine = self.start(host);
        std::mem::replace(&mut self.engines.borrow_mut()[index], engine)
    }

    async fn story(self: Rc<Self>) {
        let engines = (0..HOSTS).map(|host| self.start(host)).collect();
        drop(self.engines.replace(engines));
        for index in 0..PARTITIONS {
            let host = self.world.below(HOSTS);
            self.owners.borrow_mut().insert(partition(index), (Epoch(1), host));
            self.open(&partition(index), Epoch(1), host);
        }
        for _ in 0..STEPS {
            self.pause(700).await;
            self.step().await;
        }
        self.store.calm();
        self.pause(60_000).await;
        for engine in self.engines.borrow().iter() {
            self.executor.kill(engine.process);
        }
        let last = self.start(HOSTS);
        for index in 0..PARTITIONS {
            self.check_at_the_end(&last, &partition(index)).await;
        }
        self.executor.kill(last.process);
    }

    async fn step(self: &Rc<Self>) {
        let id = partition(u32::try_from(self.world.below(u64::from(PARTITIONS))).expect("small"));
        let (epoch, owner) = self.owners.borrow()[&id];
        let host = self.world.below(HOSTS);
        match self.world.below(10) {
            0..5 => {
                self.owners.borrow_mut().insert(id.clone(), (epoch.next(), host));
                self.open(&id, epoch.next(), host);
            }
            5 => self.open(&id, epoch, owner),
            6 => {
                self.executor.kill(self.restart(host).process);
                self.open_all(host);
            }
            7 => self.freeze(self.engine(host).process),
            8 => {
                let zombie = self.restart(host);
                self.freeze(zombie.process);
                self.open_all(host);
            }
            _ => {
                let stale = Epoch(epoch.0.saturating_sub(self.world.below(2)).max(1));
                self.open(&id, stale, host);
            }
        }
    }

    /// Stops a process for a while.
    fn freeze(self: &Rc<Self>, process: Process) {
        self.executor.freeze(process);
        let this = Rc::clone(self);
        self.executor.spawn(OUTSIDE, async move {
            this.pause(15_000).await;
            this.executor.thaw(process);
        });
    }

    /// Opens what a host had, as its agent does after a restart.
    fn open_all(self: &Rc<Self>, host: u64) {
        let owners = self.owners.borrow().clone();
        for (id, (epoch, _)) in owners.iter().filter(|(_, (_, owner))| *owner == host) {
            self.open(id, *epoch, host);
        }
    }

    fn open(self: &Rc<Self>, id: &ReplicaId, epoch: Epoch, host: u64) {
        let engine = self.engine(host);
        let answer = self.ask(&engine, id, epoch);
        let (this, id) = (Rc::clone(self), id.clone());
        self.executor.spawn(OUTSIDE, async move {
            if let Ok(Ok(())) = answer.await {
                for _ in 0..2 {
                    let client = Rc::clone(&this).commit(engine.clone(), id.clone(), epoch);
                    this.executor.spawn(OUTSIDE, client);
                }
            }
        });
    }

    fn ask(&self, engine: &Engine, id: &ReplicaId, epoch: Epoch) -> oneshot::Receiver<Result<(), OpenError>> {
        let (sender, answer) = oneshot::channel();
        let (history, mark, world) = (self.history.clone(), self.history.mark(id), self.world.clone());
        let opened = id.clone();
        let process = engine.process.0;
        let reply = Box::new(move |result: Result<_, OpenError>| {
            match &result {
                Ok(image) => history.opened(&opened, epoch, mark, image),
                Err(OpenError::Corrupt { what, .. }) => history.damage(&opened, what),
                Err(_) => {}
            }
            world.note(&format!(
                "{process} opens {opened} at {epoch}: {:?}",
                result.as_ref().map(|i| i.sequence)
            ));
            drop(sender.send(result.map(drop)));
        });
        engine.send(Work::Take(Asked { id: id.clone(), want: Want::Open(epoch, reply) }));
        answer
    }

    /// A client: commits some records, now and then with a key that was used before.
    async fn commit(self: Rc<Self>, engine: Engine, id: ReplicaId, epoch: Epoch) {
        for _ in 0..self.world.below(12) {
            let key = self.key(&id);
            let (reply, answer) = oneshot::channel();
            let commit = Commit { id: id.clone(), epoch, key: key.clone(), reply };
            engine.send(Work::Commit(commit, 100));
            match answer.await {
                Ok(Ok(sequence)) => {
                    self.world.note(&format!("{} commits {id} {epoch} {sequence} {key}", engine.process.0));
                    self.history.acknowledge(&id, epoch, sequence, &key);
                }
                Ok(Err(CommitError::AlreadyApplied | CommitError::Unavailable { .. })) => {}
                Ok(Err(_)) | Err(_) => return,
            }
            self.pause(300).await;
        }
    }

    fn key(&self, id: &ReplicaId) -> String {
        let mut keys = self.keys.borrow_mut();
        let keys = keys.entry(id.clone()).or_default();
        if !keys.is_empty() && self.world.one_in(3) {
            return keys[usize::try_from(self.world.below(keys.len() as u64)).expect("small")].clone();
        }
        let key = format!("key-{}", self.unique());
        keys.push(key.clone());
        key
    }

    /// The state outlived all that: a new host opens it, and finds what was acknowledged.
    async fn check_at_the_end(&self, engine: &Engine, id: &ReplicaId) {
        let epoch = self.owners.borrow()[id].0.next();
        for _ in 0..5 {
            if let Ok(Ok(())) = self.ask(engine, id, epoch).await {
                return;
            }
            self.pause(1000).await;
        }
        self.history.damage(id, "it can't be opened at the end");
    }
}

fn seeds() -> u64 {
    let usual = if std::env::var_os("HVM_LONG").is_some() { 10_000 } else { 300 };
    std::env::var("STATE_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(usual)
}

#[test]
fn nothing_acknowledged_is_lost_or_doubled_whatever_happens() {
    let (mut commits, mut openings) = (0, 0_u64);
    let from = std::env::var("STATE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0);
    for seed in from..from + seeds() {
        let outcome = run(seed, |_| {});
        assert!(outcome.broken.is_empty(), "STATE_SEED={seed}: {:#?}", outcome.broken);
        commits += outcome.commits;
        openings += outcome.openings as u64;
    }
    let average = |count| count / seeds().max(1);
    let is_busy = average(commits) > 10 && average(openings) > 5;
    assert!(is_busy || seeds() < 100, "little happened: {commits} commits, {openings} openings");
}

#[test]
fn a_seed_gives_the_same_run_again() {
    for seed in 0..5 {
        assert_eq!(run(seed, |_| {}), run(seed, |_| {}), "seed {seed}");
    }
}

/// What the net is for.
#[cfg(feature = "planted-faults")]
mod planted {
    use super::*;

    #[expect(clippy::print_stderr, reason = "which seed found it is for people")]
    fn is_found(plant: Plant) {
        let found = (0..1000).find_map(|seed| Some((seed, run(seed, plant).broken.into_iter().next()?)));
        let (seed, broken) = found.expect("the fault is found");
        eprintln!("found by STATE_SEED={seed}: {broken}");
    }

    #[test]
    fn a_fence_at_a_number_that_was_deleted_is_found() {
        is_found(|core| core.faults.trust_free_numbers = true);
    }

    #[test]
    fn segments_that_are_deleted_too_early_are_found() {
        is_found(|core| core.faults.delete_early = true);
    }

    #[test]
    fn an_ignored_fence_is_found() {
        is_found(|core| core.faults.ignore_fences = true);
    }

    #[test]
    fn an_acknowledgement_before_the_put_is_found() {
        is_found(|core| core.faults.acknowledge_early = true);
    }

    #[test]
    fn an_epoch_that_two_hosts_use_is_found() {
        is_found(|core| core.faults.reuse_epochs = true);
    }
}
