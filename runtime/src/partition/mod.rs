//! A partition on its worker: its mailbox, the version that it runs, and the way of a request through it.
//!
//! A partition has no task while it is idle. A request brings one; it works off the lane it arrives in and
//! ends. There are two lanes: commands, strictly one after another, and queries, some at a time. A stateless
//! replica has the second only.

mod accept;
mod answer;
mod call;
mod close;
mod command;
mod idempotency;
mod import;
mod job;
mod lane;
mod migrate;
mod open;
mod pinned;
mod query;
mod reserved;
mod sequence;
mod upgrade;
mod version;

pub(crate) use accept::{Start, accept};
pub(crate) use call::{Started, call, call_from_afar};
pub(crate) use close::close;
pub(crate) use import::import;
pub(crate) use job::Reply;
pub(crate) use open::open;
pub(crate) use pinned::Partition;
pub(crate) use sequence::strip as strip_sequence;
pub use sequence::{AT_LEAST, SEQUENCE};
pub(crate) use upgrade::upgrade;
pub(crate) use version::Version;
