//! `density`: how many partitions one host holds, what each costs, how fast one wakes. Each part runs in a process of
//! its own, so that it measures its own memory alone. `benches/density` builds and runs it.

mod bed;
mod part;
mod process;

use std::io::Write as _;
use std::process::{Command, ExitCode, Stdio};

/// The parts by name, in the order in which they run.
const PARTS: [&str; 6] = ["start", "live", "hibernated-stateful", "hibernated-stateless", "wake", "requests"];

fn main() -> ExitCode {
    // Cargo passes `--bench`.
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let numbers =
        |argument: Option<String>, default| argument.map_or(Some(default), |text| text.parse().ok());
    match arguments.next().as_deref() {
        Some("part") => {
            let name = arguments.next().unwrap_or_default();
            let (Some(live), Some(hibernated)) =
                (numbers(arguments.next(), part::LIVE), numbers(arguments.next(), part::HIBERNATED))
            else {
                return ExitCode::from(2);
            };
            let lines = part::run(&name, live, hibernated);
            let written = std::io::stdout().write_all(lines.as_bytes());
            if written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        first => run_all(first.map(str::to_owned), arguments.next()),
    }
}

fn run_all(live: Option<String>, hibernated: Option<String>) -> ExitCode {
    let program = std::env::current_exe().expect("this program has a path");
    let (live, hibernated) =
        (live.unwrap_or(part::LIVE.to_string()), hibernated.unwrap_or(part::HIBERNATED.to_string()));
    let mut out = std::io::stdout();
    drop(writeln!(out, "| Measured | Value |\n|---|--:|"));
    for name in PARTS {
        let arguments = ["part", name, &live, &hibernated];
        let part =
            Command::new(&program).args(arguments).stdin(Stdio::null()).stdout(Stdio::inherit()).status();
        if !part.is_ok_and(|status| status.success()) {
            drop(writeln!(std::io::stderr(), "density: the part `{name}` failed"));
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
