//! The phases of a plan, one file each.

mod placement;
mod removal;
mod run;
mod stop;
mod update;

pub use run::plan;
