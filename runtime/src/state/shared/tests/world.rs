//! The clock and the chance of a simulation, and the executor that runs its tasks.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::oneshot;

use crate::state::shared::names::Nonce;
use crate::state::shared::surroundings::Surroundings;

/// Steps after which a run is taken for endless; an ordinary one has some thousands.
const STEPS_MAX: usize = 1_000_000;

type Event = Box<dyn FnOnce() + Send>;

/// The clock, the chance and what is to happen.
#[derive(Clone)]
pub(in crate::state) struct World(Arc<Mutex<Inside>>);

struct Inside {
    chance: u64,
    /// Milliseconds.
    now: u64,
    events: BTreeMap<(u64, u64), Event>,
    next_event: u64,
    trace: u64,
}

impl World {
    pub(in crate::state) fn new(seed: u64) -> Self {
        let (events, chance) = (BTreeMap::new(), seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5eed);
        Self(Arc::new(Mutex::new(Inside { chance, now: 0, events, next_event: 0, trace: 0 })))
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// SplitMix64.
    pub(super) fn next(&self) -> u64 {
        let mut inside = self.inside();
        inside.chance = inside.chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = inside.chance;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(in crate::state) fn below(&self, limit: u64) -> u64 {
        self.next() % limit
    }

    pub(in crate::state) fn one_in(&self, chances: u64) -> bool {
        chances > 0 && self.below(chances) == 0
    }

    /// Lets something happen after some milliseconds.
    pub(super) fn after(&self, millis: u64, event: impl FnOnce() + Send + 'static) {
        let mut inside = self.inside();
        let key = (inside.now + millis, inside.next_event);
        inside.next_event += 1;
        inside.events.insert(key, Box::new(event));
    }

    /// Notes what happened: two runs with one seed must note the same.
    pub(in crate::state) fn note(&self, what: &str) {
        let mut inside = self.inside();
        let line = format!("{} {} {what}", inside.trace, inside.now);
        inside.trace = xxhash_rust::xxh3::xxh3_64(line.as_bytes());
        tracing::trace!(at = inside.now, "{what}");
    }

    pub(in crate::state) fn trace(&self) -> u64 {
        self.inside().trace
    }

    /// Lets the next event happen; `false` when there is none.
    fn advance(&self) -> bool {
        let event = {
            let mut inside = self.inside();
            let Some(((at, _), event)) = inside.events.pop_first() else { return false };
            inside.now = at;
            event
        };
        event();
        true
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("World")
    }
}

impl Surroundings for World {
    fn nonce(&self) -> Nonce {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.next().to_le_bytes());
        bytes[8..].copy_from_slice(&self.next().to_le_bytes());
        Nonce(bytes)
    }

    fn sleep(&self, pause: Duration) -> BoxFuture<'static, ()> {
        let (sender, receiver) = oneshot::channel();
        let millis = u64::try_from(pause.as_millis()).expect("a short pause");
        self.after(millis, move || {
            // Whoever waited may be gone.
            let _ = sender.send(());
        });
        Box::pin(async move { drop(receiver.await) })
    }
}

/// One process: it is killed, and it stops and goes on, as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Process(pub(super) u64);

/// Runs tasks on one thread, in an order that the chance decides.
#[derive(Clone, Default)]
pub(super) struct Executor(Rc<RefCell<Tasks>>);

#[derive(Default)]
struct Tasks {
    tasks: Vec<Task>,
    spawned: Vec<Task>,
    dead: BTreeSet<Process>,
    frozen: BTreeSet<Process>,
}

struct Task {
    process: Process,
    future: Pin<Box<dyn Future<Output = ()>>>,
    flag: Arc<Flag>,
}

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl Executor {
    pub(super) fn spawn(&self, process: Process, future: impl Future<Output = ()> + 'static) {
        let flag = Arc::new(Flag(AtomicBool::new(true)));
        self.0.borrow_mut().spawned.push(Task { process, future: Box::pin(future), flag });
    }

    /// Ends a process where it stands.
    pub(super) fn kill(&self, process: Process) {
        self.0.borrow_mut().dead.insert(process);
    }

    pub(super) fn freeze(&self, process: Process) {
        self.0.borrow_mut().frozen.insert(process);
    }

    pub(super) fn thaw(&self, process: Process) {
        self.0.borrow_mut().frozen.remove(&process);
    }

    /// Runs until nothing can happen any more. `false` when that does not come.
    pub(super) fn run(&self, world: &World) -> bool {
        for _ in 0..STEPS_MAX {
            let (ended, mut task) = {
                let mut inside = self.0.borrow_mut();
                let Tasks { tasks, spawned, dead, frozen } = &mut *inside;
                tasks.append(spawned);
                let ended: Vec<_> = tasks.extract_if(.., |task| dead.contains(&task.process)).collect();
                let ready: Vec<usize> = (0..tasks.len())
                    .filter(|i| {
                        tasks[*i].flag.0.load(Ordering::SeqCst) && !frozen.contains(&tasks[*i].process)
                    })
                    .collect();
                let chosen = (!ready.is_empty())
                    .then(|| ready[usize::try_from(world.below(ready.len() as u64)).expect("small")]);
                (ended, chosen.map(|index| tasks.swap_remove(index)))
            };
            // What a dead task held may wake others; nothing is borrowed here.
            drop(ended);
            match &mut task {
                Some(task) => {
                    task.flag.0.store(false, Ordering::SeqCst);
                    let waker = Waker::from(Arc::clone(&task.flag));
                    if task.future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
                        continue;
                    }
                }
                None if world.advance() => continue,
                None => return true,
            }
            self.0.borrow_mut().tasks.extend(task);
        }
        false
    }
}
