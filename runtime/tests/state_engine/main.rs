//! Tests of the state engines: one conformance suite for all, and what only one of them promises.

#![expect(clippy::print_stderr, clippy::print_stdout, reason = "seeds for people, lines between processes")]

mod bed;
mod conformance;
mod crash;
mod damage;
mod disk;
mod history;
mod import_crash;
mod local;
mod model;
mod power;
mod s3;
mod shared;
mod state_file;
mod transfer;
