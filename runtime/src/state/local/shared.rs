//! What the committer and the handles share: the queue, the newest view, and each partition's numbers.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{SendError, Sender, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hvm_types::{Epoch, ReplicaId, Sequence};
use tokio::sync::Notify;

use super::config::LocalConfig;
use super::import::ImportJob;
use super::layout::{Head, Number};
use super::store::View;
use crate::state::{CommitError, CommitRecord, CommitReply, OpenError, ReadError};

/// Work for the committer.
pub(in crate::state) enum Job {
    Commit(Box<CommitJob>),
    Open { id: ReplicaId, epoch: Epoch, reply: SyncSender<Result<Arc<Cell>, OpenError>> },
    Remove { id: ReplicaId, reply: SyncSender<Result<(), CommitError>> },
    Import(Box<ImportJob>),
    Stop,
}

pub(in crate::state) struct CommitJob {
    pub(super) cell: Arc<Cell>,
    pub(super) epoch: Epoch,
    pub(super) record: CommitRecord,
    pub(in crate::state) bytes: usize,
    pub(in crate::state) reply: CommitReply,
}

/// One open partition. Its numbers change with the view, under the same lock.
#[derive(Debug)]
pub(in crate::state) struct Cell {
    pub(super) number: Number,
    epoch: AtomicU64,
    sequence: AtomicU64,
    stored: AtomicU64,
    removed: AtomicBool,
    /// The epoch of a newer owner elsewhere; 0 while there is none.
    fenced_by: AtomicU64,
}

impl Cell {
    pub(super) fn new(head: &Head) -> Self {
        Self {
            number: head.number,
            epoch: AtomicU64::new(head.epoch.0),
            sequence: AtomicU64::new(head.sequence.0),
            stored: AtomicU64::new(head.stored),
            removed: AtomicBool::new(false),
            fenced_by: AtomicU64::new(0),
        }
    }

    pub(super) fn publish(&self, head: &Head) {
        self.epoch.store(head.epoch.0, Ordering::Release);
        self.sequence.store(head.sequence.0, Ordering::Release);
        self.stored.store(head.stored, Ordering::Release);
    }

    pub(super) fn remove(&self) {
        self.removed.store(true, Ordering::Release);
    }

    /// The partition has a newer owner elsewhere, which may have the same epoch.
    pub(super) fn fence(&self, newest: Epoch) {
        self.fenced_by.store(newest.0, Ordering::Release);
    }

    /// The newer owner elsewhere, if there is one.
    pub(in crate::state) fn fenced_by(&self) -> Option<Epoch> {
        match self.fenced_by.load(Ordering::Acquire) {
            0 => None,
            newest => Some(Epoch(newest)),
        }
    }

    pub(super) fn sequence(&self) -> Sequence {
        Sequence(self.sequence.load(Ordering::Acquire))
    }

    pub(super) fn stored(&self) -> u64 {
        self.stored.load(Ordering::Acquire)
    }

    /// Whether the handle with this epoch may still read.
    pub(super) fn check(&self, epoch: Epoch) -> Result<(), ReadError> {
        if let Some(newest) = self.fenced_by() {
            return Err(ReadError::Fenced { newest });
        }
        if self.removed.load(Ordering::Acquire) {
            return Err(ReadError::Removed);
        }
        let newest = Epoch(self.epoch.load(Ordering::Acquire));
        if newest == epoch { Ok(()) } else { Err(ReadError::Fenced { newest }) }
    }
}

/// The newest view, or why there is none.
pub(super) type Published = Result<View, String>;

pub(in crate::state) struct Shared {
    pub(super) config: LocalConfig,
    jobs: Sender<Job>,
    /// Notified after each job, where the committer waits for more than jobs.
    notify: Option<Arc<Notify>>,
    queued: AtomicUsize,
    queued_bytes: AtomicUsize,
    published: Mutex<Published>,
}

impl Shared {
    pub(super) fn new(config: LocalConfig, jobs: Sender<Job>, view: View) -> Self {
        let published = Mutex::new(Ok(view));
        let (queued, queued_bytes) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self { config, jobs, notify: None, queued, queued_bytes, published }
    }

    /// The same for a committer that waits for this.
    pub(super) fn notifying(self, notify: Arc<Notify>) -> Self {
        Self { notify: Some(notify), ..self }
    }

    fn put(&self, job: Job) -> Result<(), SendError<Job>> {
        self.jobs.send(job)?;
        if let Some(notify) = &self.notify {
            notify.notify_one();
        }
        Ok(())
    }

    /// The view, locked: numbers that change with it are stored while this is held.
    pub(super) fn published(&self) -> MutexGuard<'_, Published> {
        // A view is replaced whole, so a panic elsewhere leaves a good one.
        self.published.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn view(&self) -> Result<View, ReadError> {
        self.published().clone().map_err(|reason| ReadError::Unavailable { reason })
    }

    /// Queues a record without blocking.
    pub(super) fn enqueue(&self, job: CommitJob) {
        let bytes = job.bytes;
        let queued = self.queued.fetch_add(1, Ordering::AcqRel);
        let queued_bytes = self.queued_bytes.fetch_add(bytes, Ordering::AcqRel);
        // A single record passes whatever its size, so that none is refused for ever.
        let full = queued >= self.config.queue_records
            || (queued > 0 && queued_bytes + bytes > self.config.queue_bytes.bytes());
        let refused = if full {
            Some((job.reply, CommitError::Busy { queued }))
        } else {
            let sent = self.put(Job::Commit(Box::new(job)));
            let stopped = |SendError(job)| reply_of(job).map(|reply| (reply, CommitError::stopped()));
            sent.err().and_then(stopped)
        };
        if let Some((reply, error)) = refused {
            self.taken(1, bytes);
            reply.send(Err(error));
        }
    }

    /// Queues other work; `false` when the engine has stopped. Whoever does waits for the answer, so there is at most
    /// one for each thread.
    pub(in crate::state) fn send(&self, job: Job) -> bool {
        self.put(job).is_ok()
    }

    /// Counts records out of the queue.
    pub(in crate::state) fn taken(&self, records: usize, bytes: usize) {
        self.queued.fetch_sub(records, Ordering::AcqRel);
        self.queued_bytes.fetch_sub(bytes, Ordering::AcqRel);
    }
}

fn reply_of(job: Job) -> Option<CommitReply> {
    match job {
        Job::Commit(job) => Some(job.reply),
        Job::Open { .. } | Job::Remove { .. } | Job::Import(_) | Job::Stop => None,
    }
}
