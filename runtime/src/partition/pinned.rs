//! A partition as it is pinned to its worker, and working off its lanes.

use std::cell::{Cell, RefCell};
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use hvm_types::{Meter, ReplicaState};
use tokio::sync::Notify;

use super::job::{Asked, Job};
use super::lane::Lane;
use super::upgrade::Swap;
use super::version::Version;
use crate::LogLevel;
use crate::capability::PartitionLog;
use crate::host::Host;
use crate::observed::Observed;
use crate::state::ReadError;
use crate::worker::{CpuAccount, Slices, give_way_in_time};

/// A partition or stateless replica that takes requests.
pub(crate) struct Partition {
    pub(super) host: Arc<Host>,
    pub(super) slices: Rc<Slices>,
    pub(super) cpu: Rc<CpuAccount>,
    pub(super) observed: Arc<Observed>,
    pub(super) log: Arc<PartitionLog>,
    pub(super) version: RefCell<Rc<Version>>,
    /// The meter as of the last committed record.
    pub(super) committed_meter: RefCell<Meter>,
    /// Requests that wait for a record.
    pub(super) behind: Cell<u32>,
    /// A record was committed, or the partition may not commit any more.
    pub(super) changed: Notify,
    pub(super) commands: Lane<Work>,
    pub(super) queries: Lane<Work>,
    /// Requests that were accepted and have not ended.
    pub(super) accepted: Cell<u32>,
    /// Somebody waits for `drained`.
    pub(super) draining: Cell<bool>,
    pub(super) drained: Notify,
    /// Held by the one upgrade that is being made.
    pub(super) upgrading: tokio::sync::Mutex<()>,
}

/// What a lane works off.
pub(super) enum Work {
    Request(Box<Job>),
    Swap(Box<Swap>),
}

impl Partition {
    /// The version that runs now. A request keeps the one it began with.
    pub(super) fn version(&self) -> Rc<Version> {
        Rc::clone(&self.version.borrow())
    }

    /// Charges time on the worker, until now, that no task of its own took.
    pub(crate) fn charge(&self, time: Duration, now: Instant) {
        self.slices.charge(&self.cpu, time, now);
    }

    /// Works off a lane, unless it is being worked off already by as many tasks as it may be.
    pub(super) async fn work_off(self: Rc<Self>, lane: fn(&Self) -> &Lane<Work>) {
        let Some(turn) = lane(&self).enter() else { return };
        while let Some(work) = turn.next() {
            // A fault of the host fails the request that it happened in, not the worker.
            let done = AssertUnwindSafe(self.work(work)).catch_unwind().await;
            if done.is_err() {
                self.log.host(LogLevel::Error, "the host failed in this request; see the host's own log");
            }
            // Requests that never wait would all be worked off in one poll.
            if !turn.is_last() {
                give_way_in_time().await;
            }
        }
    }

    /// What is not a query is in a box of its own: a query would otherwise carry the room for it, and be moved with it.
    async fn work(self: &Rc<Self>, work: Work) {
        match work {
            Work::Request(job) if job.is_command => Box::pin(self.run_command(*job)).await,
            Work::Request(job) => match job.asked {
                Asked::Http { .. } => self.run_query(*job).await,
                Asked::Call(_) => Box::pin(self.run_call(*job)).await,
            },
            Work::Swap(swap) => Box::pin(self.swap(*swap)).await,
        }
    }

    /// Starts a task that works off a lane.
    pub(super) fn run_lane(self: &Rc<Self>, lane: fn(&Self) -> &Lane<Work>) {
        let task = Rc::clone(self).work_off(lane);
        crate::worker::spawn_here(self.slices.metered(&self.cpu, task));
    }

    /// Works off a lane, beginning within the task that asks.
    pub(super) fn begin_lane(self: &Rc<Self>, lane: fn(&Self) -> &Lane<Work>) {
        let task = Rc::clone(self).work_off(lane);
        crate::worker::begin_here(self.slices.metered(&self.cpu, task));
    }

    /// What failing to read state means for the partition.
    pub(super) fn note_read_error(&self, error: &ReadError) {
        match error {
            ReadError::Fenced { newest } => self.observed.set_state(ReplicaState::Fenced { epoch: *newest }),
            ReadError::Corrupt { .. } | ReadError::Removed => {
                self.observed.set_state(ReplicaState::Failed { reason: error.to_string() });
            }
            ReadError::Unavailable { .. } => return,
        }
        self.changed.notify_waiters();
    }

    /// Forgets the requests that wait: the worker stops. They hold the partition that holds them.
    pub(crate) fn abandon(&self) {
        self.commands.clear();
        self.queries.clear();
    }

    pub(super) fn waiting(&self) -> u32 {
        self.observed.waiting.load(Relaxed)
    }
}
