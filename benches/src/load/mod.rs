//! The load bench: servers of all kinds that answer the same request, side by side, as programs of their own over
//! loopback. It starts and stops them, sends the load with `wrk`, and reads from `/proc` what they used.

mod bench;
mod client;
mod contestant;
mod many;
mod report;
mod samples;
mod server;
mod wrk;

pub use bench::{LoadPlan, measure};
pub use contestant::Programs;
pub use many::{ManyPlan, measure_partitions};
pub use report::{load_table, partition_table};
pub use samples::{LoadSamples, PartitionSamples};

/// What keeps the bench from going on.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct LoadError {
    what: String,
}

impl LoadError {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into() }
    }

    /// An error of the system, and what was tried.
    pub(crate) fn io(tried: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let tried = tried.into();
        move |error| Self { what: format!("{tried}: {error}") }
    }
}
