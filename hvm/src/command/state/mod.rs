//! `hvm state`: the durable state of partitions on all hosts, and the files that it travels in.

mod check;
mod export;
mod file;
mod hosts;
mod import;
mod ls;
mod snapshot;

use crate::cli::StateCommand;
use crate::failure::Failure;

/// Runs `hvm state …`.
pub(crate) async fn state(command: StateCommand) -> Result<(), Failure> {
    match command {
        StateCommand::Ls { of, list } => ls::ls(of.unwrap_or_default(), &list).await,
        StateCommand::Snapshot { of, out, list } => {
            snapshot::snapshot(of.unwrap_or_default(), &out, &list).await
        }
        StateCommand::Export { partition, out, list } => export::export(&partition, &out, &list).await,
        StateCommand::Import { partition, file, replace, list } => {
            import::import(&partition, &file, replace, &list).await
        }
        StateCommand::Check { what, list } => check::check(what, &list).await,
    }
}
