//! What a worker has: its partitions, its slices, and the set of tasks on its thread.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use hvm_types::{Metering, ReplicaId};
use rustc_hash::FxHashMap;
use tokio::task::LocalSet;

use super::idle::IdleOrder;
use super::{Slices, Turns};
use crate::guest::InstanceHandle;
use crate::host::Host;
use crate::memory::MemoryAccount;
use crate::partition::Partition;

/// Idle instances are looked at this often within the time after which they go.
const LOOKS: u32 = 8;
/// Instances that go before the worker looks at its other work.
const AT_ONCE: u32 = 8;
/// Stands for a time that no clock reaches.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 60 * 60);

thread_local! {
    static LOCAL: RefCell<Option<Rc<Local>>> = const { RefCell::new(None) };
    static TASKS: RefCell<Option<Rc<LocalSet>>> = const { RefCell::new(None) };
}

/// What belongs to one worker and never leaves its thread.
pub(crate) struct Local {
    pub(crate) host: Arc<Host>,
    pub(crate) slices: Rc<Slices>,
    pub(crate) turns: Rc<Turns>,
    pub(crate) partitions: RefCell<FxHashMap<ReplicaId, Slot>>,
    /// Idle instances, of each pool by itself: dropping one of another makes no room.
    idle: [IdleOrder; Metering::ALL.len()],
    index: usize,
}

/// A partition of a worker.
#[derive(Clone)]
pub(crate) enum Slot {
    /// Its state is being opened.
    Opening,
    /// It takes requests.
    Open(Rc<Partition>),
}

/// Runs a task on this worker. Only to be called on a worker's thread.
pub(crate) fn spawn_here(task: impl Future<Output = ()> + 'static) {
    TASKS.with_borrow(|tasks| {
        if let Some(tasks) = tasks {
            drop(tasks.spawn_local(task));
        }
    });
}

/// Begins a task at once, within the task that asks for it, and goes on with it as a task of its own where it has to
/// wait. Most requests are answered before they ever wait: they cost no task and no second turn. Only to be called on
/// a worker's thread.
pub(crate) fn begin_here(mut task: impl Future<Output = ()> + Unpin + 'static) {
    // As a task of its own it is polled at once, whatever has happened by then: until then nobody need wake it.
    let mut context = Context::from_waker(Waker::noop());
    // The budget of the task that asks is not this one's: with it, a channel could claim to be empty when it is not.
    if std::pin::pin!(tokio::task::unconstrained(&mut task)).poll(&mut context).is_pending() {
        spawn_here(task);
    }
}

impl Local {
    pub(super) fn install(host: &Arc<Host>, index: usize, tasks: &Rc<LocalSet>) -> Rc<Self> {
        let local = Rc::new(Self {
            host: Arc::clone(host),
            slices: Slices::new(),
            turns: Turns::new(Instant::now()),
            partitions: RefCell::default(),
            idle: <[IdleOrder; Metering::ALL.len()]>::default(),
            index,
        });
        LOCAL.set(Some(Rc::clone(&local)));
        TASKS.set(Some(Rc::clone(tasks)));
        local
    }

    pub(super) fn uninstall(&self) {
        for partition in self.open_partitions() {
            partition.abandon();
        }
        self.partitions.take();
        LOCAL.take();
        TASKS.take();
    }

    /// The worker of this thread, if it is the one with this number of this host.
    pub(crate) fn here(host: &Arc<Host>, index: usize) -> Option<Rc<Self>> {
        LOCAL.with_borrow(|local| {
            local.as_ref().filter(|local| local.index == index && Arc::ptr_eq(&local.host, host)).cloned()
        })
    }

    /// Whether this thread is the worker with this number of this host.
    pub(crate) fn is_here(host: &Arc<Host>, index: usize) -> bool {
        LOCAL.with_borrow(|local| {
            local.as_ref().is_some_and(|local| local.index == index && Arc::ptr_eq(&local.host, host))
        })
    }

    /// The worker's number.
    pub(super) const fn index(&self) -> usize {
        self.index
    }

    /// The worker of this thread.
    pub(crate) fn current() -> Option<Rc<Self>> {
        LOCAL.with_borrow(Clone::clone)
    }

    /// The partition with this id.
    pub(crate) fn partition(&self, id: &ReplicaId) -> Option<Slot> {
        self.partitions.borrow().get(id).cloned()
    }

    /// Charges time on this worker, until now, to a partition. Where that is not open any more, it stays the host's.
    pub(crate) fn charge(&self, id: &ReplicaId, time: Duration, now: Instant) {
        if let Some(Slot::Open(partition)) = self.partition(id) {
            partition.charge(time, now);
        }
    }

    fn open_partitions(&self) -> Vec<Rc<Partition>> {
        let partitions = self.partitions.borrow();
        let open = partitions.values().filter_map(|slot| match slot {
            Slot::Open(partition) => Some(Rc::clone(partition)),
            Slot::Opening => None,
        });
        open.collect()
    }

    /// Drops the instance that has been idle for longest. False where none is idle.
    pub(crate) fn reclaim_one(&self) -> bool {
        let mut orders = self.idle.each_ref();
        orders.sort_by_key(|order| order.earliest());
        orders.into_iter().any(|order| order.drop_one(None))
    }

    /// The same of those whose places are in the pool for this way of metering.
    pub(crate) fn reclaim_place(&self, metering: Metering) -> bool {
        self.idle(metering).drop_one(None)
    }

    /// The idle instances of one pool.
    pub(crate) const fn idle(&self, metering: Metering) -> &IdleOrder {
        let [time, deterministic] = &self.idle;
        match metering {
            Metering::Time => time,
            Metering::Deterministic => deterministic,
        }
    }

    /// Drops the longest-idle instance of those whose memory this account counts. False where none is idle.
    pub(crate) fn reclaim_of(&self, account: &Arc<MemoryAccount>) -> bool {
        let version = self.idle.iter().find_map(|order| order.of_account(account));
        let idle = version.and_then(|version| version.take_longest_idle());
        idle.map(InstanceHandle::drop_here).is_some()
    }

    /// Drops instances of partitions that had no request for long, for as long as the worker lives. While none is
    /// idle it does nothing.
    pub(super) async fn hibernate_loop(self: Rc<Self>) {
        let after = self.host.config.hibernate_after;
        let shortest_pause = (after / LOOKS).max(Duration::from_millis(1));
        loop {
            let Some(earliest) = self.idle.iter().filter_map(IdleOrder::earliest).min() else {
                let [time, deterministic] = &self.idle;
                tokio::select! {
                    () = time.added() => {}
                    () = deterministic.added() => {}
                }
                continue;
            };
            let due = earliest.checked_add(after).unwrap_or(earliest + FOREVER);
            let at = due.max(Instant::now() + shortest_pause);
            tokio::time::sleep_until(at.into()).await;
            let Some(before) = Instant::now().checked_sub(after) else { continue };
            let drop_one = |_| self.idle.iter().any(|order| order.drop_one(Some(before)));
            while (0..AT_ONCE).all(drop_one) {
                tokio::task::yield_now().await;
            }
        }
    }
}
