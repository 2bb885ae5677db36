//! What durable commands cost, beside the floors of the same disk in the same run: one host with 1, 100 and 10,000
//! partitions and a thousand clients, against a bare log, fjall, redb and SQLite. Then what is asked of state that grew:
//! opening with a long history, bytes written for each byte committed, and the cost of partitions that do nothing.
//!
//! `--seconds N` is the length of each measurement, `--only TEXT` takes the parts whose names contain it, `--history N`
//! is the length of the history in MiB.
#![allow(clippy::expect_used, reason = "a bench that can't go on says so and ends")]

mod commands;
mod commits;
mod floors;
mod grown;
mod report;

use std::io::Write as _;
use std::time::Duration;

/// How long each measurement takes unless told.
const DEFAULT_SECONDS: u64 = 3;
/// Length of the history unless told, in MiB.
const DEFAULT_HISTORY: u64 = 1024;

/// Partitions that share the clients.
const PARTITIONS: [u32; 3] = [1, 100, 10_000];
/// Clients, each with one command under way.
const CLIENTS: usize = 1_000;

fn text(name: &str) -> Option<String> {
    std::env::args().skip_while(|argument| argument != name).nth(1)
}

fn number(name: &str) -> Option<u64> {
    text(name)?.parse().ok()
}

fn main() {
    let each = Duration::from_secs(number("--seconds").unwrap_or(DEFAULT_SECONDS).max(1));
    let history = number("--history").unwrap_or(DEFAULT_HISTORY).max(1);
    let only = text("--only").unwrap_or_default();
    let parts: [(&str, &dyn Fn() -> String); 4] = [
        ("floors", &|| floors::table(each)),
        ("commits", &|| commits::table(each)),
        ("commands", &|| commands::table(each)),
        ("grown", &|| grown::table(history)),
    ];
    for (name, measure) in parts {
        if name.contains(&only) {
            drop(writeln!(std::io::stderr(), "{name}"));
            drop(std::io::stdout().write_all(measure().as_bytes()));
        }
    }
}
