//! What every store offers, and the words it is said in.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

use super::StoreError;

/// Most conditions, and most writes, in one transaction.
pub const MAX_OPERATIONS: usize = 128;
/// Most bytes of keys and values in one transaction: 1.5 MiB.
pub const MAX_TRANSACTION_BYTES: usize = 1_536 << 10;
/// Longest key.
pub const MAX_KEY_BYTES: usize = 256;

/// Number of a transaction, growing by one with each; 0 before the first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

/// A lease. Never reused by a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub u64);

/// A stored document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its key.
    pub key: String,
    /// Its bytes.
    pub value: Bytes,
    /// The transaction that wrote it last.
    pub revision: Revision,
    /// The lease at whose end it goes.
    pub lease: Option<LeaseId>,
}

/// The documents under a prefix, all as of one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// Sorted by key.
    pub entries: Vec<Entry>,
    /// A revision not newer than that moment: a watch from here misses nothing, and may repeat what the
    /// entries already show.
    pub revision: Revision,
}

/// Writes that happen together, if every key is as expected. Each key is written at most once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transaction {
    /// The revision that each key must have; `None`: it must not exist.
    pub expects: Vec<(String, Option<Revision>)>,
    /// What is written.
    pub writes: Vec<Write>,
}

/// One write of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Creates or replaces a document.
    Put {
        /// Its key.
        key: String,
        /// Its bytes.
        value: Bytes,
        /// The lease that it depends on.
        lease: Option<LeaseId>,
    },
    /// Removes a document; nothing happens where there is none.
    Delete {
        /// Its key.
        key: String,
    },
}

impl Write {
    /// The key that is written.
    #[must_use]
    pub fn key(&self) -> &str {
        match self {
            Self::Put { key, .. } | Self::Delete { key } => key,
        }
    }
}

/// Something that happened to a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It was written.
    Put(Entry),
    /// It was deleted, or its lease ended.
    Delete {
        /// The key.
        key: String,
        /// The transaction that did it.
        revision: Revision,
    },
}

impl Change {
    /// The key that changed.
    #[must_use]
    pub fn key(&self) -> &str {
        match self {
            Self::Put(entry) => &entry.key,
            Self::Delete { key, .. } => key,
        }
    }

    /// The transaction that changed it.
    #[must_use]
    pub const fn revision(&self) -> Revision {
        match self {
            Self::Put(entry) => entry.revision,
            Self::Delete { revision, .. } => *revision,
        }
    }
}

/// Changes in the order of their revisions. After an error it ends.
pub type ChangeStream = BoxStream<'static, Result<Change, StoreError>>;

/// A store of small documents; see the [module](super).
#[async_trait]
pub trait CoordinationStore: Send + Sync + 'static {
    /// The document at `key`.
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError>;

    /// All documents whose key begins with `prefix`.
    async fn list(&self, prefix: &str) -> Result<Listing, StoreError>;

    /// Writes durably, all or nothing. Returns the revision of the written documents.
    async fn transact(&self, transaction: Transaction) -> Result<Revision, StoreError>;

    /// All changes under `prefix` after the revision `after`, past and future.
    /// [`StoreError::Compacted`] where the store does not remember that far back: list again.
    async fn watch(&self, prefix: &str, after: Revision) -> Result<ChangeStream, StoreError>;

    /// A new lease, which ends `ttl` after its last renewal. A restart of the store counts as a renewal.
    async fn grant_lease(&self, ttl: Duration) -> Result<LeaseId, StoreError>;

    /// Renews a lease; [`StoreError::LeaseExpired`] where it has ended.
    async fn renew_lease(&self, lease: LeaseId) -> Result<(), StoreError>;
}
