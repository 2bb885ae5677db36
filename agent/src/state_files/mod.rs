//! The durable state of this host's partitions, as operators list, export, import and check it. Files are
//! streamed between the engine and whoever asked; nothing of them is kept here.

mod export;
mod import;
mod pipe;
mod stored;

pub(crate) use stored::{AT_A_TIME, StateFiles};
