//! The commands: each module is one, from its arguments to what it prints.

mod coredump;
mod daemon;
mod deploy;
mod doing;
mod existing;
mod image;
mod logs;
mod plan;
mod run;
mod state;
mod status;
mod stop;
mod usage;

pub(crate) use run::run;
