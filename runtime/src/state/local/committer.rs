//! The one thread that writes: takes what is queued, makes one batch of it, syncs it, publishes the new view,
//! and then answers.
//!
//! A record that comes alone is written at once; those that come during a sync share the next one.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError};

use hvm_types::{ByteSize, ReplicaId, Sequence};

use super::acknowledged::{Acknowledged, Count};
use super::batch::Batch;
use super::directory::Directory;
use super::failure::{Failure, Setback};
use super::import::{ImportOutcome, ImportTicket};
use super::layout::{Chain, Number};
use super::open::OpenPartitions;
use super::purge::Purge;
use super::shared::{Cell, CommitJob, Job, Shared};
use super::stage::{Newest, Stage};
use super::store::{Store, Writes};
use crate::state::{CommitError, CommitReply, OpenError};

/// A batch is closed when its records have this many bytes or are this many.
const BATCH_BYTES: usize = 1 << 20;
const BATCH_JOBS: usize = 4096;

/// The committer's state. Everything that decides what is written is here and nowhere else.
pub(super) struct Committer {
    pub(super) shared: Arc<Shared>,
    pub(super) jobs: Receiver<Job>,
    pub(super) directory: Arc<Directory>,
    /// Absent while the database could not be opened again.
    pub(super) store: Option<Store>,
    pub(super) acknowledged: Acknowledged,
    pub(super) chain: Chain,
    pub(super) next_number: u64,
    pub(super) open: OpenPartitions,
    /// Removed partitions whose keys are still there.
    pub(super) purges: VecDeque<Purge>,
    /// Whether purging waits for the next batch that passes.
    pub(super) purge_waits: bool,
    pub(super) failure: Option<Failure>,
}

/// An answer that waits for the sync.
enum Ticket {
    Commit(CommitReply, Sequence),
    Open { id: ReplicaId, newest: Box<Newest>, reply: SyncSender<Result<Arc<Cell>, OpenError>> },
    Remove { number: Option<Number>, reply: SyncSender<Result<(), CommitError>> },
    Import(ImportTicket),
}

impl Committer {
    /// Runs until it is told to stop or all handles are gone.
    pub(super) fn run(mut self) {
        while let Some((jobs, stop)) = self.next_jobs() {
            if !jobs.is_empty() {
                self.process(jobs);
            }
            if stop {
                break;
            }
        }
        *self.shared.published() = Err("the state engine has stopped".to_owned());
    }

    /// Waits for work. While nothing waits, it purges.
    fn next_jobs(&mut self) -> Option<(Vec<Job>, bool)> {
        let first = loop {
            if self.purges.is_empty() || self.purge_waits || self.failure.is_some() {
                break self.jobs.recv().ok()?;
            }
            match self.jobs.try_recv() {
                Ok(job) => break job,
                Err(TryRecvError::Empty) => self.purge_some(),
                Err(TryRecvError::Disconnected) => return None,
            }
        };
        let (mut jobs, mut records, mut bytes, mut stop) = (Vec::new(), 0, 0, false);
        let mut next = Some(first);
        while let Some(job) = next {
            match job {
                Job::Stop => {
                    stop = true;
                    break;
                }
                Job::Commit(ref commit) => {
                    bytes += commit.bytes;
                    records += 1;
                }
                Job::Open { .. } | Job::Remove { .. } | Job::Import(_) => {}
            }
            jobs.push(job);
            let open = bytes < BATCH_BYTES && jobs.len() < BATCH_JOBS;
            next = if open { self.jobs.try_recv().ok() } else { None };
        }
        self.shared.taken(records, bytes);
        Some((jobs, stop))
    }

    fn process(&mut self, jobs: Vec<Job>) {
        if let Err(refusal) = self.ensure_works() {
            jobs.into_iter().for_each(|job| refuse(job, &refusal));
            return;
        }
        let view = match self.shared.view() {
            Ok(view) => view,
            Err(error) => {
                let refusal = CommitError::from(error);
                jobs.into_iter().for_each(|job| refuse(job, &refusal));
                return;
            }
        };
        let mut stage = Stage::new(&view, &self.open, self.shared.config.window);
        #[cfg(feature = "planted-faults")]
        {
            stage.faults = self.shared.config.faults;
        }
        let mut next_number = self.next_number;
        let tickets: Vec<Ticket> =
            jobs.into_iter().filter_map(|job| stage_job(&mut stage, job, &mut next_number)).collect();
        let batch = stage.batch;
        self.next_number = next_number;
        #[cfg(feature = "planted-faults")]
        let tickets = self.answer_early(tickets);
        match self.write(batch) {
            Ok(()) => tickets.into_iter().for_each(|ticket| self.answer(ticket)),
            Err(refusal) => tickets.into_iter().for_each(|ticket| deny(ticket, &refusal)),
        }
    }

    /// Writes, syncs and publishes a batch; an empty one needs nothing.
    pub(super) fn write(&mut self, mut batch: Batch) -> Result<(), CommitError> {
        if batch.writes.is_empty() {
            return Ok(());
        }
        self.check_space(batch.bytes())?;
        let chain = batch.close(self.chain);
        self.commit(batch.writes)?;
        self.chain = chain;
        self.purge_waits = false;
        if let Err(error) = self.acknowledged.write(self.count()) {
            // The count is behind then: it proves less, nothing is lost.
            tracing::warn!(%error, "the count of acknowledged batches was not written");
        }
        self.publish(batch.newest);
        Ok(())
    }

    fn commit(&mut self, writes: Writes) -> Result<(), CommitError> {
        let Some(store) = &self.store else { return Err(CommitError::stopped()) };
        #[cfg(feature = "planted-faults")]
        if self.shared.config.faults.skip_sync {
            return store.apply(writes).map_err(|_| CommitError::stopped());
        }
        let Err(failure) = store.commit(writes) else { return Ok(()) };
        let Some(failure) = Failure::of(failure) else {
            let reason = "the database did not make room in time; the disk is too slow".to_owned();
            return Err(CommitError::Unavailable { reason });
        };
        tracing::error!(reason = failure.reason, "a batch was not written");
        self.acknowledged.write_failed(self.count());
        let refusal = self.refusal(&failure);
        self.failure = Some(failure);
        Err(refusal)
    }

    /// What the file of acknowledged batches should say.
    pub(super) fn count(&self) -> Count {
        Count { database: self.chain.database, batches: self.chain.count, failed: false }
    }

    /// Refuses when the disk has less than the reserve, so that the database itself never meets a full disk.
    fn check_space(&self, bytes: u64) -> Result<(), CommitError> {
        let config = &self.shared.config;
        let unflushed = self.store.as_ref().map_or(0, Store::unflushed_bytes);
        // Once in the journal and once in a table.
        let needed =
            ByteSize(config.reserve.0.saturating_add(unflushed).saturating_add(bytes.saturating_mul(2)));
        let free = config.free_space.measure(self.directory.path()).map_err(|error| {
            CommitError::Unavailable { reason: format!("the disk's free space can't be measured: {error}") }
        })?;
        if free < needed { Err(CommitError::StorageFull { free, needed }) } else { Ok(()) }
    }

    /// Recovers from an earlier failure where that is possible.
    fn ensure_works(&mut self) -> Result<(), CommitError> {
        let Some(mut failure) = self.failure.take() else { return Ok(()) };
        let refusal = self.refusal(&failure);
        if !failure.may_recover() || self.check_space(0).is_err() {
            self.failure = Some(failure);
            return Err(refusal);
        }
        match self.recover() {
            Ok(()) => {
                tracing::info!("the database was opened again after: {}", failure.reason);
                return Ok(());
            }
            Err(Setback::Later(reason)) => tracing::warn!("the database was not opened again: {reason}"),
            Err(Setback::Forever(reason)) => failure = Failure::forever(reason),
        }
        self.failure = Some(failure);
        Err(refusal)
    }

    fn refusal(&self, failure: &Failure) -> CommitError {
        let config = &self.shared.config;
        match config.free_space.measure(self.directory.path()) {
            Ok(free) if failure.full => CommitError::StorageFull { free, needed: config.reserve },
            _ => CommitError::Unavailable { reason: failure.reason.clone() },
        }
    }

    /// Makes the newest state visible, and with it the numbers of the partitions that changed.
    fn publish(&mut self, changed: HashMap<Number, Option<Newest>>) {
        let Some(store) = &self.store else { return };
        let view = store.view();
        let mut published = self.shared.published();
        let before = std::mem::replace(&mut *published, Ok(view));
        self.open.publish(changed);
        drop(published);
        drop(before);
    }

    /// Answers records before they are written, where that fault is planted.
    #[cfg(feature = "planted-faults")]
    fn answer_early(&mut self, tickets: Vec<Ticket>) -> Vec<Ticket> {
        let is_early = |ticket: &Ticket| {
            self.shared.config.faults.acknowledge_early && matches!(ticket, Ticket::Commit(..))
        };
        let (early, rest): (Vec<_>, Vec<_>) = tickets.into_iter().partition(is_early);
        early.into_iter().for_each(|ticket| self.answer(ticket));
        rest
    }

    fn answer(&mut self, ticket: Ticket) {
        match ticket {
            Ticket::Commit(reply, sequence) => reply.send(Ok(sequence)),
            Ticket::Open { newest, reply, .. } => drop(reply.send(Ok(self.open.opened(*newest)))),
            Ticket::Remove { number, reply } => {
                if let Some(number) = number {
                    self.open.removed(number);
                    self.purges.push_back(Purge::new(number));
                }
                drop(reply.send(Ok(())));
            }
            Ticket::Import(ticket) => {
                if let ImportOutcome::Ended(Some(number)) = ticket.outcome {
                    self.open.removed(number);
                    self.purges.push_back(Purge::new(number));
                }
                ticket.accept();
            }
        }
    }
}

/// Adds a job to the batch. What is refused is answered at once.
fn stage_job(stage: &mut Stage<'_>, job: Job, next_number: &mut u64) -> Option<Ticket> {
    match job {
        Job::Commit(job) => {
            let CommitJob { cell, epoch, record, reply, .. } = *job;
            match stage.commit(cell.number, epoch, record) {
                Ok(sequence) => Some(Ticket::Commit(reply, sequence)),
                Err(error) => {
                    reply.send(Err(error));
                    None
                }
            }
        }
        Job::Open { id, epoch, reply } => match stage.open(&id, epoch, next_number) {
            Ok(newest) => Some(Ticket::Open { id, newest: Box::new(newest), reply }),
            Err(error) => {
                drop(reply.send(Err(error)));
                None
            }
        },
        Job::Remove { id, reply } => match stage.remove(&id) {
            Ok(number) => Some(Ticket::Remove { number, reply }),
            Err(error) => {
                drop(reply.send(Err(error.into())));
                None
            }
        },
        Job::Import(job) => stage.import(*job, next_number).map(Ticket::Import),
        Job::Stop => None,
    }
}

fn refuse(job: Job, refusal: &CommitError) {
    match job {
        Job::Commit(job) => job.reply.send(Err(refusal.clone())),
        Job::Open { id, reply, .. } => drop(reply.send(Err(open_error(id, refusal)))),
        Job::Remove { reply, .. } => drop(reply.send(Err(refusal.clone()))),
        Job::Import(job) => job.refuse(refusal),
        Job::Stop => {}
    }
}

fn deny(ticket: Ticket, refusal: &CommitError) {
    match ticket {
        Ticket::Commit(reply, _) => reply.send(Err(refusal.clone())),
        Ticket::Open { id, reply, .. } => drop(reply.send(Err(open_error(id, refusal)))),
        Ticket::Remove { reply, .. } => drop(reply.send(Err(refusal.clone()))),
        Ticket::Import(ticket) => ticket.deny(refusal),
    }
}

fn open_error(id: ReplicaId, refusal: &CommitError) -> OpenError {
    match refusal {
        CommitError::StorageFull { free, needed } => {
            OpenError::StorageFull { id, free: *free, needed: *needed }
        }
        CommitError::Unavailable { reason } => OpenError::Unavailable { id, reason: reason.clone() },
        other => OpenError::Unavailable { id, reason: other.to_string() },
    }
}
