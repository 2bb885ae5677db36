//! `bench-table DIRECTORY`: prints the table of the rounds that criterion saved in a directory. `benches/run` makes both.

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
    let printed = match Results::read(Path::new(&directory)) {
        Ok(results) => writeln!(std::io::stdout(), "{}", markdown(&results).trim_end()),
        Err(error) => writeln!(std::io::stderr(), "bench-table: failed to {error}")
            .and(Err(std::io::Error::other(error))),
    };
    if printed.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
