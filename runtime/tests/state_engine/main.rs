//! Tests of the state engines: one conformance suite for all, and what only the local engine promises.

#![expect(clippy::print_stderr, clippy::print_stdout, reason = "seeds for people, lines between processes")]

mod bed;
mod conformance;
mod crash;
mod damage;
mod disk;
mod import_crash;
mod local;
mod model;
mod state_file;
mod transfer;
