//! `bench-table DIRECTORY`: prints the table of the rounds that criterion saved in a directory. `benches/run` makes both.

use std::error::Error as _;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use hvm_benches::{Results, markdown};

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(directory), None) = (arguments.next(), arguments.next()) else {
        drop(writeln!(std::io::stderr(), "usage: bench-table DIRECTORY"));
        return ExitCode::from(2);
    };
    let table = Results::read(Path::new(&directory)).map(|results| markdown(&results));
    let printed = match table {
        Ok(table) => std::io::stdout().write_all(table.as_bytes()),
        Err(error) => {
            let reason = error.source().map_or_else(String::new, |source| format!(": {source}"));
            drop(writeln!(std::io::stderr(), "bench-table: failed to {error}{reason}"));
            return ExitCode::FAILURE;
        }
    };
    if printed.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
