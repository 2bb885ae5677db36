//! The interface of a state engine. It is object-safe: the caller holds `Arc<dyn StateEngine>` and does not
//! know where the state is.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use hvm_types::{ByteSize, Epoch, HostId, Meter, ReplicaId, Sequence};
use tokio::sync::oneshot;

use super::{CommitError, CommitRecord, HistoryPage, IdempotencyKey, OpenError, ReadError, StoredAnswer};
use super::{Import, ImportError, Scan};

/// The state of all partitions of one host. Opening and removing block on the disk; call them off the
/// request path.
pub trait StateEngine: Send + Sync {
    /// Opens a partition for the owner with this epoch, and creates it where it does not exist.
    ///
    /// The epoch is durable before this returns. Handles of older epochs are fenced from then on, here and
    /// wherever the same state is reached. Opening again with the same epoch is a restart of the same owner.
    ///
    /// # Errors
    /// [`OpenError::Fenced`] when a newer epoch has opened it; see [`OpenError`] for the others.
    fn open(&self, id: &ReplicaId, epoch: Epoch) -> Result<Arc<dyn PartitionState>, OpenError>;

    /// All partitions with state, sorted by id.
    ///
    /// # Errors
    /// Where the state can't be read.
    fn partitions(&self) -> Result<Vec<PartitionInfo>, ReadError>;

    /// Everything that was committed to a partition until now, whoever has it open; `None` where it does not
    /// exist.
    ///
    /// # Errors
    /// Where the state can't be read.
    fn scan(&self, id: &ReplicaId) -> Result<Option<Box<dyn Scan>>, ReadError>;

    /// Begins to make a partition of what comes from elsewhere, for the owner with this epoch. Where the
    /// partition has records, only with `replace`.
    ///
    /// # Errors
    /// See [`ImportError`]; nothing was changed then.
    fn import(&self, id: &ReplicaId, epoch: Epoch, replace: bool) -> Result<Box<dyn Import>, ImportError>;

    /// Removes a partition and all its state. When this returns, a later `open` starts it empty; the space
    /// comes back in the background. Removing what does not exist is no error.
    ///
    /// # Errors
    /// Where the removal can't be made durable.
    fn remove(&self, id: &ReplicaId) -> Result<(), CommitError>;
}

/// One owner's handle to the state of one partition.
pub trait PartitionState: Send + Sync {
    /// The epoch this handle was opened with.
    fn epoch(&self) -> Epoch;

    /// Number of the last acknowledged record.
    ///
    /// # Errors
    /// Where the state can't be read.
    fn sequence(&self) -> Result<Sequence, ReadError>;

    /// Bytes of keys and values that the partition holds: what its quota counts.
    ///
    /// # Errors
    /// Where the state can't be read.
    fn stored_bytes(&self) -> Result<ByteSize, ReadError>;

    /// The version of the layout of its state, as the last record that changed it said; `None` where none did.
    ///
    /// # Errors
    /// Where the state can't be read.
    fn schema(&self) -> Result<Option<u32>, ReadError>;

    /// Sum of the meters of all its records.
    ///
    /// # Errors
    /// Where the state can't be read.
    fn meter(&self) -> Result<Meter, ReadError>;

    /// What was committed until now. It holds old versions on the disk while it lives, so keep it short.
    ///
    /// # Errors
    /// Where the state can't be read.
    fn snapshot(&self) -> Result<Box<dyn Snapshot>, ReadError>;

    /// Commits one record. It is queued when this returns, in the order of the calls; it is durable when
    /// the future resolves to its number. Dropping the future does not take the record back.
    fn commit(&self, record: CommitRecord) -> CommitFuture;

    /// The answer that was committed with this key, if it is still in the idempotency window.
    ///
    /// # Errors
    /// Where the state can't be read.
    fn answer(&self, key: &IdempotencyKey) -> Result<Option<StoredAnswer>, ReadError>;

    /// Records that are kept, those after `after`, in order: at most `limit` of them, at most
    /// [`MAX_PAGE_RECORDS`](super::MAX_PAGE_RECORDS), and some mebibytes unless one alone is larger.
    ///
    /// # Errors
    /// [`ReadError::Corrupt`] where one of them is missing or not as it was committed; others where the state
    /// can't be read.
    fn history(&self, after: Sequence, limit: usize) -> Result<HistoryPage, ReadError>;
}

/// A consistent view of one partition. Reads go to memory or to one disk block.
pub trait Snapshot: Send {
    /// Number of the last record in this view.
    fn sequence(&self) -> Sequence;

    /// The value of a key.
    ///
    /// # Errors
    /// Where the state can't be read.
    fn get(&self, bucket: &str, key: &str) -> Result<Option<Bytes>, ReadError>;

    /// Keys of a bucket in byte order, those after `cursor`, at most `limit` of them and at most
    /// [`MAX_PAGE_KEYS`].
    ///
    /// # Errors
    /// Where the state can't be read.
    fn list_keys(&self, bucket: &str, cursor: Option<&str>, limit: usize) -> Result<KeyPage, ReadError>;
}

/// Most keys in one [`KeyPage`].
pub const MAX_PAGE_KEYS: usize = 1_000;

/// Some keys of a bucket.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyPage {
    /// The keys, in byte order.
    pub keys: Vec<String>,
    /// The cursor to go on with: the last key here. Absent when no key follows.
    pub next: Option<String>,
}

/// What an engine knows of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionInfo {
    /// The partition.
    pub id: ReplicaId,
    /// The newest epoch that opened it.
    pub epoch: Epoch,
    /// Number of its last record.
    pub sequence: Sequence,
    /// Bytes of its keys and values.
    pub stored: ByteSize,
    /// Answers kept for idempotency keys.
    pub answers: u64,
    /// Sum of the meters of all its records.
    pub meter: Meter,
    /// The host that has claimed it; `None` where the engine's partitions are all of its own host.
    pub owner: Option<HostId>,
}

/// Resolves when a record is durable, or will never be.
#[derive(Debug)]
pub struct CommitFuture(oneshot::Receiver<Result<Sequence, CommitError>>);

/// The engine's side of a [`CommitFuture`]. Dropped without an answer, the future resolves to
/// [`CommitError::Unavailable`].
#[derive(Debug)]
pub struct CommitReply(oneshot::Sender<Result<Sequence, CommitError>>);

impl CommitFuture {
    /// A future and the reply that resolves it.
    #[must_use]
    pub fn pending() -> (CommitReply, Self) {
        let (sender, receiver) = oneshot::channel();
        (CommitReply(sender), Self(receiver))
    }

    /// A future that was refused before it was queued.
    #[must_use]
    pub fn refused(error: CommitError) -> Self {
        let (reply, future) = Self::pending();
        reply.send(Err(error));
        future
    }

    /// Blocks this thread until the record is durable: for threads that run no futures.
    ///
    /// # Errors
    /// As the future.
    ///
    /// # Panics
    /// Within an asynchronous task, which must await the future instead.
    pub fn wait(self) -> Result<Sequence, CommitError> {
        self.0.blocking_recv().unwrap_or_else(|_| Err(CommitError::stopped()))
    }
}

impl Future for CommitFuture {
    type Output = Result<Sequence, CommitError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0)
            .poll(context)
            .map(|result| result.unwrap_or_else(|_| Err(CommitError::stopped())))
    }
}

impl CommitReply {
    /// Resolves the future. Nobody may be waiting any more; the record counts all the same.
    pub fn send(self, result: Result<Sequence, CommitError>) {
        drop(self.0.send(result));
    }
}
