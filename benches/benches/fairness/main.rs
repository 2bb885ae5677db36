//! What one partition that misbehaves costs its neighbour on the same worker: the neighbour's times to answer, beside
//! those it has alone, for each misbehaviour, in the same run.
//!
//! The worst case on purpose: a host with one worker, which both share. Requests to the neighbour come at a fixed rate
//! whatever becomes of those before.
#![allow(clippy::expect_used, reason = "a bench that can't go on says so and ends")]

mod misbehaviour;
mod neighbour;

use std::io::Write as _;
use std::time::Duration;

use misbehaviour::Misbehaviour;
use neighbour::{Bed, Times};

/// How long each measurement takes unless told.
const DEFAULT_SECONDS: u64 = 4;
/// Rounds of all of them unless told.
const DEFAULT_ROUNDS: usize = 3;

fn argument(name: &str) -> Option<u64> {
    let mut arguments = std::env::args().skip_while(|argument| argument != name).skip(1);
    arguments.next()?.parse().ok()
}

fn main() {
    let each = Duration::from_secs(argument("--seconds").unwrap_or(DEFAULT_SECONDS).max(1));
    let rounds =
        argument("--rounds").and_then(|rounds| usize::try_from(rounds).ok()).unwrap_or(DEFAULT_ROUNDS);
    let bed = Bed::new();
    let mut rows: Vec<(Misbehaviour, Times, Times)> = Misbehaviour::ALL
        .into_iter()
        .map(|misbehaviour| (misbehaviour, Times::default(), Times::default()))
        .collect();
    for round in 1..=rounds.max(1) {
        for (misbehaviour, alone, beside) in &mut rows {
            drop(writeln!(std::io::stderr(), "round {round} of {rounds}: {}", misbehaviour.name()));
            alone.add(bed.measure(each));
            let running = bed.start(*misbehaviour);
            beside.add(bed.measure(each));
            bed.stop(running);
        }
    }
    let mut table = String::from(
        "| Beside a partition that … | p50 alone | p50 beside | ratio | p99 alone | p99 beside | ratio |\n\
         |---|---|---|---|---|---|---|\n",
    );
    for (misbehaviour, alone, beside) in &rows {
        let mut row = format!("| {} |", misbehaviour.name());
        for share in [0.5, 0.99] {
            let (before, with) = (alone.quantile(share), beside.quantile(share));
            let ratio = with.as_secs_f64() / before.as_secs_f64();
            row += &format!(" {:.0} µs | {:.0} µs | {ratio:.2} |", micros(before), micros(with));
        }
        table += &row;
        table.push('\n');
    }
    drop(std::io::stdout().write_all(table.as_bytes()));
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
