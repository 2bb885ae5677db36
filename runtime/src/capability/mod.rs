//! What the HVM offers to guests beside WASI 0.2: one small module per capability, and the log that standard
//! output leads to.

mod bindings;
mod config;
mod keyvalue;
mod link;
mod listing;
mod log;
mod logging;
mod stdio;

pub(crate) use config::{Config, ConfigView};
#[expect(unreachable_pub, reason = "the generated bindings export it again")]
pub use keyvalue::Bucket;
pub(crate) use keyvalue::{Access, Effects, Keyvalue, KeyvalueView};
pub(crate) use link::add_to_linker;
pub(crate) use log::{PartitionLog, unix_millis};
pub(crate) use logging::LoggingView;
pub(crate) use stdio::GuestOutput;
