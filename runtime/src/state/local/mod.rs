//! The local engine: state on this host's disk, in one fjall database for all partitions.
//!
//! ```text
//! handles ──jobs──▶ committer ──one batch, one fdatasync──▶ journal ──▶ tables
//!    ▲                  │ acknowledged (count of batches, beside the database)
//!    └───── view ◀──────┘ published after the sync
//! ```
//!
//! One thread, the [`committer`], writes; so (epoch, sequence) is checked and advanced in one place, and
//! many commits share one sync. Readers use the newest published view and never wait for it.
//!
//! Not here: state that survives the host.

mod acknowledged;
mod batch;
mod cache;
mod codec;
mod committer;
mod config;
mod directory;
mod engine;
mod failure;
#[cfg(feature = "planted-faults")]
mod faults;
mod import;
mod journal;
mod kept;
mod layout;
mod open;
mod partition;
mod purge;
mod scan;
mod shared;
mod stage;
mod store;
mod tables;
#[cfg(test)]
mod tests;
mod window;

pub use config::{FreeSpace, LocalConfig};
pub use engine::LocalEngine;

pub(in crate::state) use cache::{Cache, CacheBatch, CacheFailure, PartitionWrites};
pub(in crate::state) use partition::LocalPartition;
pub(in crate::state) use scan::LocalScan;
pub(in crate::state) use shared::{Cell, CommitJob, Job, Shared};
