//! `hvm state`: the durable state of partitions on all hosts, and the files that it travels in.

mod check;
mod export;
mod file;
mod hosts;
mod import;
mod ls;
mod run;
mod snapshot;

pub(crate) use run::state;
