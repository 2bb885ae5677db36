//! From a parsed command to its module.

use super::{build, inspect, keygen, new, pack, run, sign, verify};
use crate::arguments::Command;
use crate::failure::Failure;

/// Does what a command says.
pub(crate) fn execute(command: Command) -> Result<String, Failure> {
    match command {
        Command::New(arguments) => new::run(&arguments),
        Command::Build(arguments) => build::run(&arguments),
        Command::Pack(arguments) => pack::run(&arguments),
        Command::Keygen(arguments) => keygen::run(&arguments),
        Command::Sign(arguments) => sign::run(&arguments),
        Command::Verify(arguments) => verify::run(&arguments),
        Command::Inspect(arguments) => inspect::run(&arguments),
        Command::Run(arguments) => run::run(arguments),
    }
}
