//! `appimage-tool`: what an app's author uses to build, pack, sign and look at AppImages.

mod arguments;
mod command;
mod failure;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;

use crate::arguments::Arguments;

fn main() -> ExitCode {
    match command::execute(Arguments::parse().command) {
        Ok(output) => {
            // Whoever closed our output early has read enough.
            let _ = std::io::stdout().write_all(output.as_bytes());
            ExitCode::SUCCESS
        }
        Err(failure) => {
            let _ = std::io::stderr().write_all(failure.to_string().as_bytes());
            ExitCode::FAILURE
        }
    }
}
