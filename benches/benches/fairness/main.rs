//! What one partition that misbehaves costs its neighbour on the same worker: the neighbour's times to answer, beside
//! those it has alone, for each misbehaviour, in the same run.
//!
//! The worst case on purpose: a host with one worker, which both share. Requests to the neighbour come whatever becomes
//! of those before. `--only TEXT` measures the misbehaviours whose names contain it. What was measured while a
//! hypervisor gave the machine's time to others is measured again, a few times.
#![allow(clippy::expect_used, reason = "a bench that can't go on says so and ends")]

mod misbehaviour;
mod neighbour;

use std::io::Write as _;
use std::time::Duration;

use hvm_benches::Stolen;
use misbehaviour::Misbehaviour;
use neighbour::{Bed, Load, Times};

/// How long each measurement takes unless told.
const DEFAULT_SECONDS: u64 = 4;
/// Rounds of all of them unless told.
const DEFAULT_ROUNDS: usize = 3;

/// Most of the machine's time that may be stolen while something is measured, and how often it is tried again.
const MAX_STOLEN: f64 = 0.005;
const TRIES: usize = 4;

/// One misbehaviour beside one load of the neighbour.
struct Row {
    misbehaviour: Misbehaviour,
    load: Load,
    alone: Times,
    beside: Times,
    /// The most that was stolen while one of these was measured, as a share of the machine's time.
    stolen: f64,
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
            stolen: 0.0,
        })
        .collect();
    for round in 1..=rounds.max(1) {
        for row in &mut rows {
            let name = row.misbehaviour.name();
            drop(writeln!(std::io::stderr(), "round {round} of {rounds}: {name}, {:?}", row.load));
            row.measure(&bed, each);
        }
    }
    for load in Load::ALL {
        drop(std::io::stdout().write_all(table(load, &rows).as_bytes()));
    }
}

impl Row {
    /// Alone, then beside the one that misbehaves.
    fn measure(&mut self, bed: &Bed, each: Duration) {
        let mut best: Option<(f64, Times, Times)> = None;
        for _ in 0..TRIES {
            let before = Stolen::now();
            let alone = bed.measure(self.load, each);
            let running = bed.start(self.misbehaviour);
            let beside = bed.measure(self.load, each);
            bed.stop(running);
            let stolen = before.share_since();
            if best.as_ref().is_none_or(|(least, ..)| stolen < *least) {
                best = Some((stolen, alone, beside));
            }
            if stolen <= MAX_STOLEN {
                break;
            }
        }
        let (stolen, alone, beside) = best.expect("at least one try");
        self.alone.add(alone);
        self.beside.add(beside);
        self.stolen = self.stolen.max(stolen);
    }
}

fn table(load: Load, rows: &[Row]) -> String {
    let mut table = format!(
        "\nThe neighbour is {}:\n\n\
         | Beside a partition that … | p50 alone | beside | ratio | p90 alone | beside | ratio | p99 alone | beside | ratio | stolen |\n\
         |---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n",
        load.name()
    );
    for row in rows.iter().filter(|row| row.load == load) {
        table += &format!("| {} |", row.misbehaviour.name());
        for share in [0.5, 0.9, 0.99] {
            let (alone, beside) = (row.alone.quantile(share), row.beside.quantile(share));
            let ratio = beside.as_secs_f64() / alone.as_secs_f64();
            table += &format!(" {:.0} µs | {:.0} µs | {ratio:.2} |", micros(alone), micros(beside));
        }
        table += &format!(" {:.1} % |\n", row.stolen * 100.0);
    }
    table
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
