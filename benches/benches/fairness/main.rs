//! What one partition that misbehaves costs its neighbour on the same worker: the neighbour's times to answer, beside
//! those it has alone, for each misbehaviour, in the same run.
//!
//! The worst case on purpose: a host with one worker, which both share. Requests to the neighbour come whatever becomes
//! of those before. `--only TEXT` measures the misbehaviours whose names contain it.
#![allow(clippy::expect_used, reason = "a bench that can't go on says so and ends")]

mod misbehaviour;
mod neighbour;

use std::io::Write as _;
use std::time::Duration;

use misbehaviour::Misbehaviour;
use neighbour::{Bed, Load, Times};

/// How long each measurement takes unless told.
const DEFAULT_SECONDS: u64 = 4;
/// Rounds of all of them unless told.
const DEFAULT_ROUNDS: usize = 3;

/// One misbehaviour beside one load of the neighbour.
struct Row {
    misbehaviour: Misbehaviour,
    load: Load,
    alone: Times,
    beside: Times,
}

fn text(name: &str) -> Option<String> {
    std::env::args().skip_while(|argument| argument != name).nth(1)
}

fn number(name: &str) -> Option<u64> {
    text(name)?.parse().ok()
}

fn main() {
    let each = Duration::from_secs(number("--seconds").unwrap_or(DEFAULT_SECONDS).max(1));
    let rounds = number("--rounds").and_then(|rounds| usize::try_from(rounds).ok()).unwrap_or(DEFAULT_ROUNDS);
    let only = text("--only").unwrap_or_default();
    let chosen = Misbehaviour::ALL.into_iter().filter(|misbehaviour| misbehaviour.name().contains(&only));
    let bed = Bed::new();
    let mut rows: Vec<Row> = chosen
        .flat_map(|misbehaviour| Load::ALL.map(|load| (misbehaviour, load)))
        .map(|(misbehaviour, load)| Row {
            misbehaviour,
            load,
            alone: Times::default(),
            beside: Times::default(),
        })
        .collect();
    for round in 1..=rounds.max(1) {
        for row in &mut rows {
            let name = row.misbehaviour.name();
            drop(writeln!(std::io::stderr(), "round {round} of {rounds}: {name}, {:?}", row.load));
            row.alone.add(bed.measure(row.load, each));
            let running = bed.start(row.misbehaviour);
            row.beside.add(bed.measure(row.load, each));
            bed.stop(running);
        }
    }
    for load in Load::ALL {
        drop(std::io::stdout().write_all(table(load, &rows).as_bytes()));
    }
}

fn table(load: Load, rows: &[Row]) -> String {
    let mut table = format!(
        "\nThe neighbour is {}:\n\n\
         | Beside a partition that … | p50 alone | beside | ratio | p90 alone | beside | ratio | p99 alone | beside | ratio |\n\
         |---|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n",
        load.name()
    );
    for row in rows.iter().filter(|row| row.load == load) {
        table += &format!("| {} |", row.misbehaviour.name());
        for share in [0.5, 0.9, 0.99] {
            let (alone, beside) = (row.alone.quantile(share), row.beside.quantile(share));
            let ratio = beside.as_secs_f64() / alone.as_secs_f64();
            table += &format!(" {:.0} µs | {:.0} µs | {ratio:.2} |", micros(alone), micros(beside));
        }
        table.push('\n');
    }
    table
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
