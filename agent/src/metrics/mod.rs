//! The metrics of this host in the OpenMetrics text format, for Prometheus and what reads the same.
//!
//! Nothing is counted here. Each time somebody asks, what the HVM and the books say is written down, so that what a
//! partition leaves behind goes with it.

mod endpoint;
mod exposition;
mod scope;
mod snapshot;
mod write;

pub(crate) use endpoint::{Metrics, routes};
