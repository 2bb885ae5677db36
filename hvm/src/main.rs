//! `hvm`, the operator's program: parses the command line, runs one command, turns its outcome into an
//! exit code. 0: done; 1: refused or failed; 2: wrong usage.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line program prints")]

mod cli;
mod client;
mod command;
mod failure;
mod image_upload;
mod out;
mod settings;
mod signals;
mod state_store;
mod table;
mod telemetry;

use std::process::ExitCode;

use clap::Parser;

/// A request takes dozens of small allocations, most of them inside the WASI host: with the C library's allocator they
/// were a fifth of the processor time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some(settings::COMPILE) {
        // Not said by people: what the agent starts, and no command line or executor is made for.
        return hvm_agent::compile_child(&arguments.next().unwrap_or_default());
    }
    let cli = cli::Cli::parse();
    match command::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.print();
            ExitCode::FAILURE
        }
    }
}
