//! Starting and stopping the shared engine: one thread that runs the core, and what asks it.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::JoinHandle;

use hvm_types::{Epoch, ReplicaId};
use tokio::sync::Notify;

use super::at_hand::AtHand;
use super::config::SharedConfig;
use super::core::{Asked, Core, Inbox, Settings, Want, Work};
use super::objects::{Objects, Patience};
use super::surroundings::System;
use crate::state::local::{Cache, CommitJob, Job, LocalPartition, LocalScan, Shared};
use crate::state::{
    CommitError, Import, ImportError, OpenError, PartitionInfo, PartitionState, ReadError, Scan, StartError,
    StateEngine,
};

/// Most bytes of records in one segment, unless one alone is larger.
const BATCH_BYTES: usize = 1 << 20;

/// Listings that wait; whoever asks for more waits to ask.
const LISTINGS: usize = 64;

type Listing = SyncSender<Result<Vec<PartitionInfo>, ReadError>>;

/// The state of the partitions of this host, in a store that outlives it. Dropping it waits for the records
/// that are queued; handles that outlive it are refused.
pub struct SharedEngine {
    shared: Arc<Shared>,
    listings: SyncSender<Listing>,
    notify: Arc<Notify>,
    thread: Option<JoinHandle<()>>,
}

impl SharedEngine {
    /// Starts an engine. It has no partition until one is opened.
    ///
    /// # Errors
    /// [`StartError::Locked`] while another process has the directory, and others of [`StartError`].
    pub fn start(config: SharedConfig) -> Result<Self, StartError> {
        let SharedConfig { host, store, local, attempt, attempts, upkeep } = config;
        let path = local.directory.clone();
        let io = |action| move |source| StartError::Io { action, path, source };
        let notify = Arc::new(Notify::new());
        let (cache, shared, jobs) = Cache::create(local, Arc::clone(&notify))?;
        let (listings, asked) = sync_channel::<Listing>(LISTINGS);
        let (queue, woken) = (Arc::clone(&shared), Arc::clone(&notify));
        let run = move |runtime: tokio::runtime::Runtime| {
            let objects = Objects::new(store.objects, Arc::new(System), Patience { attempt, attempts });
            let settings = Settings { batch_bytes: BATCH_BYTES, upkeep_bytes: upkeep.0 };
            let receive = Box::new(move || match asked.try_recv() {
                Ok(reply) => Some(Work::List(Box::new(move |result| drop(reply.send(result))))),
                Err(_) => receive(&jobs, &queue),
            });
            let core =
                Core::new(objects, host, settings, Inbox { receive, notify: woken }, AtHand::new(cache));
            runtime.block_on(core.run());
            drop(core);
            // What still waits for the store is left to it.
            runtime.shutdown_background();
        };
        let thread = std::thread::Builder::new()
            .name("hvm-committer".to_owned())
            .spawn(move || match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => run(runtime),
                Err(error) => tracing::error!(%error, "the shared state engine has no runtime"),
            })
            .map_err(io("start the thread that commits to"))?;
        Ok(Self { shared, listings, notify, thread: Some(thread) })
    }

    /// Asks the core; `None` when it has stopped.
    fn ask<T>(&self, job: Job, answer: &Receiver<T>) -> Option<T> {
        if self.shared.send(job) { answer.recv().ok() } else { None }
    }
}

/// The next job as work for the core.
fn receive(jobs: &Receiver<Job>, queue: &Shared) -> Option<Work<AtHand>> {
    let job = match jobs.try_recv() {
        Ok(job) => job,
        Err(TryRecvError::Empty) => return None,
        Err(TryRecvError::Disconnected) => return Some(Work::Stop),
    };
    Some(match job {
        Job::Commit(commit) => {
            let bytes = commit.bytes;
            queue.taken(1, bytes);
            let commit: CommitJob = *commit;
            Work::Commit(commit, bytes)
        }
        Job::Open { id, epoch, reply } => {
            let answer = Box::new(move |result| drop(reply.send(result)));
            Work::Take(Asked { id, want: Want::Open(epoch, answer) })
        }
        Job::Remove { id, reply } => {
            let answer = Box::new(move |result| drop(reply.send(result)));
            Work::Take(Asked { id, want: Want::Remove(answer) })
        }
        // The engine refuses imports before they are sent.
        Job::Import(job) => {
            job.refuse(&CommitError::stopped());
            return receive(jobs, queue);
        }
        Job::Stop => Work::Stop,
    })
}

impl StateEngine for SharedEngine {
    fn open(&self, id: &ReplicaId, epoch: Epoch) -> Result<Arc<dyn PartitionState>, OpenError> {
        let (reply, answer) = sync_channel(1);
        let stopped = OpenError::Unavailable { id: id.clone(), reason: CommitError::stopped().to_string() };
        let cell = self.ask(Job::Open { id: id.clone(), epoch, reply }, &answer).unwrap_or(Err(stopped))?;
        Ok(Arc::new(LocalPartition::new(Arc::clone(&self.shared), cell, epoch)))
    }

    fn partitions(&self) -> Result<Vec<PartitionInfo>, ReadError> {
        let (reply, answer) = sync_channel(1);
        let stopped = ReadError::Unavailable { reason: CommitError::stopped().to_string() };
        if self.listings.send(reply).is_err() {
            return Err(stopped);
        }
        self.notify.notify_one();
        answer.recv().unwrap_or(Err(stopped))
    }

    fn scan(&self, id: &ReplicaId) -> Result<Option<Box<dyn Scan>>, ReadError> {
        if let Some(scan) = LocalScan::of_newest(&self.shared, id)? {
            return Ok(Some(Box::new(scan)));
        }
        if self.partitions()?.iter().any(|partition| partition.id == *id) {
            let reason = format!("{id} is not open on this host; ask its owner");
            return Err(ReadError::Unavailable { reason });
        }
        Ok(None)
    }

    /// Refused: shared state takes partitions over from hosts, and from no file yet.
    fn import(&self, id: &ReplicaId, _epoch: Epoch, _replace: bool) -> Result<Box<dyn Import>, ImportError> {
        let reason = "shared state can't be imported; import it where state is on the host's disk".to_owned();
        Err(ImportError::Unavailable { id: id.clone(), reason })
    }

    fn remove(&self, id: &ReplicaId) -> Result<(), CommitError> {
        let (reply, answer) = sync_channel(1);
        self.ask(Job::Remove { id: id.clone(), reply }, &answer).unwrap_or(Err(CommitError::stopped()))
    }
}

impl Drop for SharedEngine {
    fn drop(&mut self) {
        self.shared.send(Job::Stop);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that commits shared state had panicked");
        }
    }
}
