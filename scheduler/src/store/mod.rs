//! The coordination store: the one place where the scheduler keeps what must survive it.
//!
//! A store holds small documents by key. It offers four things: reading (one key, or a prefix), one
//! compare-and-swap transaction, watching a prefix from a revision on, and leases, which delete their keys
//! when nobody renews them. No other consistency is promised and none is needed: every decision is made
//! from what was read and written back on the condition that it did not change.
//!
//! Stores: [`EmbeddedStore`], for one process. All pass the suite in `tests/store_conformance.rs`. The
//! limits are those of etcd, so that what fits one store fits each.

mod embedded;
mod error;
mod history;
mod interface;
mod leases;
mod table;

pub use embedded::EmbeddedStore;
pub use error::StoreError;
pub use interface::{
    Change, ChangeStream, CoordinationStore, Entry, LeaseId, Listing, MAX_KEY_BYTES, MAX_OPERATIONS,
    MAX_TRANSACTION_BYTES, Revision, Transaction, Write,
};
