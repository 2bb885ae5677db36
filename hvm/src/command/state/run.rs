//! Choosing the command of `hvm state`.

use super::{check, export, import, ls, snapshot};
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
