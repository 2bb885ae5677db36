//! Choosing the command, and the executor it runs on.

use crate::cli::{Cli, Command};
use crate::command::{coredump, daemon, deploy, image, logs, plan, state, status, stop, usage};
use crate::failure::Failure;

/// Runs the command that was asked for.
pub(crate) fn run(cli: Cli) -> Result<(), Failure> {
    let executor = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    executor.block_on(async {
        match cli.command {
            Command::Dev(args) => Box::pin(daemon::dev(args)).await,
            Command::Agent(args) => Box::pin(daemon::agent(args)).await,
            Command::Scheduler(args) => Box::pin(daemon::scheduler(args)).await,
            Command::Image(command) => Box::pin(image::image(command)).await,
            Command::Plan(args) => Box::pin(plan::plan(args)).await,
            Command::Deploy(args) => Box::pin(deploy::deploy(args)).await,
            Command::Status(args) => Box::pin(status::status(args)).await,
            Command::Hosts(args) => Box::pin(status::hosts(args)).await,
            Command::Logs(args) => Box::pin(logs::logs(args)).await,
            Command::Coredump(args) => Box::pin(coredump::coredump(args)).await,
            Command::Usage(args) => Box::pin(usage::usage(args)).await,
            Command::State(command) => Box::pin(state::state(command)).await,
            Command::Stop(args) => Box::pin(stop::stop(args)).await,
        }
    })
}
