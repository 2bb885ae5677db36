//! The shared engine: state that survives its host, because the log of commits is in an object store (the S3 API
//! or a plain directory).
//!
//! ```text
//! handles ──jobs──▶ commit loop ──one put──▶ logs/HOST-RANDOM/0, 1, 2, …        ◀── fences of others
//!    ▲                  │ then                partitions/ID/EPOCH-TURN (claims)
//!    └──── view ◀── database at hand          checkpoints/…  manifests/…
//! ```
//!
//! - One log per *incarnation* of a host's engine. A batch is committed when its segment was created at the log's
//!   next number; only then is it applied to the database at hand, visible and answered. One put serves any
//!   number of partitions.
//! - A partition belongs to the highest *claim*. Whoever takes it puts a foreign segment at the next free number
//!   of the log of each claim below, and reads that log up to there: the old writer meets the foreign segment
//!   before it can commit anything more ([`take`]).
//! - What was taken is written to the taker's own log before the opening is answered, so nothing depends on the
//!   old log any more.
//! - [`upkeep`] writes images of partitions and a manifest, and deletes the segments that are not needed any more.
//!
//! Safety needs two things of the store: create-if-absent, and lists and reads that see what was created before.
//! It needs no clock and no lease. The core is generic over the partitions at hand ([`material`]) and gets chance
//! and time from a seam ([`surroundings`]), so `tests` runs several engines in one simulation.
//!
//! Not here: deciding who may own what.

mod at_hand;
mod claim;
mod commit;
mod config;
mod core;
mod engine;
mod identity;
mod image;
mod list;
mod log;
mod manifest;
mod material;
mod names;
mod objects;
mod replay;
mod s3;
mod segment;
mod serve;
mod surroundings;
mod take;
#[cfg(test)]
pub(in crate::state) mod tests;
mod upkeep;
mod wire;

pub use config::{SharedConfig, SharedStore};
pub use engine::SharedEngine;
pub use identity::IdentityError;
pub use s3::S3Config;
