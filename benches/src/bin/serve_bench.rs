//! `serve-bench`: runs the load bench and prints its tables. `benches/serve` builds what it needs and calls it.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser};
use hvm_benches::load::{
    LoadError, LoadPlan, ManyPlan, Programs, load_table, measure, measure_partitions, partition_table,
};

/// Runs servers side by side under load and prints what they used as a Markdown table.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    programs: ProgramArguments,
    /// An empty folder for what is made on the way, and for the samples.
    #[arg(long)]
    work: PathBuf,
    /// Rounds.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Seconds of each load.
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// Measure one deployment with these numbers of partitions instead, such as 1,10,1000.
    #[arg(long, value_delimiter = ',')]
    partitions: Vec<u32>,
    /// Only the floor and servers whose names contain this; may be repeated.
    #[arg(long)]
    only: Vec<String>,
}

#[derive(Debug, Args)]
struct ProgramArguments {
    #[arg(long)]
    hvm: PathBuf,
    #[arg(long)]
    appimage_tool: PathBuf,
    #[arg(long)]
    floor: PathBuf,
    #[arg(long)]
    wasmtime: PathBuf,
    #[arg(long)]
    workerd: PathBuf,
    #[arg(long)]
    wrk: PathBuf,
    #[arg(long)]
    guest: PathBuf,
}

fn main() -> ExitCode {
    let printed = run(Arguments::parse()).map(|table| std::io::stdout().write_all(table.as_bytes()));
    match printed {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(_)) => ExitCode::FAILURE,
        Err(error) => {
            drop(writeln!(std::io::stderr(), "serve-bench: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<String, LoadError> {
    let Arguments { programs, work, rounds, seconds, partitions, only } = arguments;
    let ProgramArguments { hvm, appimage_tool, floor, wasmtime, workerd, wrk, guest } = programs;
    let programs = Programs { hvm, appimage_tool, floor, wasmtime, workerd, wrk, guest };
    let (load, samples_file) = (Duration::from_secs(seconds), work.join("samples.json"));
    if partitions.is_empty() {
        let samples = measure(&LoadPlan { programs, work, rounds, load, only })?;
        samples.save(&samples_file)?;
        Ok(load_table(&samples))
    } else {
        let samples = measure_partitions(&ManyPlan { programs, work, rounds, load, partitions })?;
        samples.save(&samples_file)?;
        Ok(partition_table(&samples))
    }
}
