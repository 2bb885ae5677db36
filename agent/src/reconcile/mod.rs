//! From what the host document asks for to what runs: level-triggered, so that nothing depends on which
//! event was seen or missed. A pure plan says the next steps; the executor does them and decides nothing.

mod backoff;
mod before;
mod document;
mod execute;
mod module_set;
mod observed;
mod plan;
mod registry;
mod report;
mod run;
mod schedule;
mod unreported;

pub(crate) use before::Before;
pub use document::DocumentError;
pub(crate) use document::DocumentStore;
pub(crate) use execute::Executor;
pub(crate) use module_set::ModuleSet;
pub(crate) use registry::Registry;
pub(crate) use run::{Reconcile, ReconcileHandle};
pub(crate) use unreported::HostReport;
