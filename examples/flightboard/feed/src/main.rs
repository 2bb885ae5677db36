//! `flightboard-feed`: a client of the flightboard example. It sends the flights of a file, one command
//! each, and compares the app's answers with what it computes from the file itself.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line program prints")]

mod board;
mod check;
mod client;
mod feed;
mod flights;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Feeds flights to the flightboard app and checks its answers.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Send every flight of a file, each as one command with an idempotency key of its own.
    Send(SendArgs),
    /// Ask for every airport and compare with the file: the answers must be equal.
    Check(CheckArgs),
}

#[derive(Debug, clap::Args)]
struct SendArgs {
    /// JSON file: an array of flights.
    file: PathBuf,
    /// Where the app is served.
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    to: String,
    /// Name of this feed. The same flight in a feed of another name counts again.
    #[arg(long, default_value = "first")]
    feed: String,
    /// File that gets one line `acked N` for each acknowledged flight, and `sent N` for each that was sent
    /// and not answered. Where it exists, its acknowledged flights are not sent again.
    #[arg(long)]
    journal: Option<PathBuf>,
    /// Requests under way at once.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// End with exit code 1 at the first request that gets no answer; otherwise it is tried again.
    #[arg(long)]
    stop_when_lost: bool,
}

#[derive(Debug, clap::Args)]
struct CheckArgs {
    /// JSON file: an array of flights.
    file: PathBuf,
    /// Where the app is served.
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    at: String,
    /// How many feeds of the whole file were acknowledged.
    #[arg(long, default_value_t = 1)]
    feeds: u64,
    /// Journal of one more feed that was cut off: its acknowledged flights must be there, its sent ones may.
    #[arg(long)]
    journal: Option<PathBuf>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|executor| {
            executor.block_on(async {
                match cli.command {
                    Command::Send(args) => feed::send(args).await,
                    Command::Check(args) => check::check(args).await,
                }
            })
        });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
