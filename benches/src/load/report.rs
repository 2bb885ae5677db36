//! The tables: medians over the rounds, ratios of the rounds with their lowest and highest, and what was wanted.

use std::fmt::Write as _;

use super::bench::CONNECTIONS;
use super::contestant::{
    BARE, BARE_FRESH, FLOOR, HVM, HVM_FRESH, WASMTIME, WASMTIME_FRESH, WASMTIME_REUSE, WORKERD,
};
use super::samples::{LoadSample, LoadSamples, PartitionSample, PartitionSamples, StartSample};

/// What is compared at most connections.
const MOST: u32 = CONNECTIONS[0];

/// A number of a sample.
type Figure = fn(&LoadSample) -> f64;

/// A ratio that is wanted: ours, whose, of what, and the highest that meets it; none where it only explains.
struct Wanted {
    what: &'static str,
    ours: &'static str,
    theirs: &'static str,
    figure: Figure,
    at_most: Option<f64>,
}

const WANTED: [Wanted; 9] = [
    Wanted {
        what: "CPU per request, to bare hyper",
        ours: HVM,
        theirs: FLOOR,
        figure: |s| s.cpu,
        at_most: Some(2.5),
    },
    Wanted {
        what: "CPU per request, to `wasmtime serve` with unlimited reuse",
        ours: HVM,
        theirs: WASMTIME_REUSE,
        figure: |s| s.cpu,
        at_most: Some(0.65),
    },
    Wanted {
        what: "CPU per request with an instance for each, to `wasmtime serve` with its best flags for that",
        ours: HVM_FRESH,
        theirs: WASMTIME_FRESH,
        figure: |s| s.cpu,
        at_most: Some(0.4),
    },
    Wanted {
        what: "p99 at 64 connections, to `wasmtime serve` as it comes",
        ours: HVM,
        theirs: WASMTIME,
        figure: |s| s.p99_ms,
        at_most: Some(1.0),
    },
    Wanted {
        what: "p99 at 64 connections, to `wasmtime serve` with unlimited reuse",
        ours: HVM,
        theirs: WASMTIME_REUSE,
        figure: |s| s.p99_ms,
        at_most: Some(1.0),
    },
    Wanted {
        what: "CPU per request, to hyper and wasmtime without us",
        ours: HVM,
        theirs: BARE,
        figure: |s| s.cpu,
        at_most: None,
    },
    Wanted {
        what: "CPU per request with an instance for each, to hyper and wasmtime without us",
        ours: HVM_FRESH,
        theirs: BARE_FRESH,
        figure: |s| s.cpu,
        at_most: None,
    },
    Wanted {
        what: "CPU per request of hyper and wasmtime without us, to `wasmtime serve` with unlimited reuse",
        ours: BARE,
        theirs: WASMTIME_REUSE,
        figure: |s| s.cpu,
        at_most: None,
    },
    Wanted {
        what: "the same with an instance for each, to `wasmtime serve` with its best flags for that",
        ours: BARE_FRESH,
        theirs: WASMTIME_FRESH,
        figure: |s| s.cpu,
        at_most: None,
    },
];

/// The servers side by side, as Markdown: what they cost, how fast they answer, and what was wanted.
#[must_use]
pub fn load_table(samples: &LoadSamples) -> String {
    let mut text = format!(
        "| Server | CPU s per 100,000 requests at {MOST} | times the floor | at 32 | at 1 | memory after load \
         | start to first answer |\n|---|--:|--:|--:|--:|--:|--:|\n"
    );
    for server in samples.servers() {
        let cpu = |connections| number(samples.median(server, connections, |s| s.cpu));
        let cells = [
            server.to_owned(),
            cpu(MOST),
            spread(&samples.ratios(server, FLOOR, MOST, |s| s.cpu)),
            cpu(32),
            cpu(1),
            samples.starts(server, |s| s.resident_mib).map_or_else(dash, |mib| format!("{mib:.0} MiB")),
            samples.starts(server, |s| s.cold_start_ms).map_or_else(dash, |ms| format!("{ms:.0} ms")),
        ];
        line(&mut text, &cells);
    }
    text.push_str("\n| Server |");
    for connections in CONNECTIONS {
        write!(text, " requests/s at {connections} | p50 | p99 |").expect("writing to a string");
    }
    text.push_str("\n|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n");
    for server in samples.servers() {
        let mut cells = vec![server.to_owned()];
        for connections in CONNECTIONS {
            let median = |figure| samples.median(server, connections, figure);
            cells.push(median(|s| s.per_second).map_or_else(dash, |rate| format!("{:.1} k", rate / 1e3)));
            cells.push(median(|s| s.p50_ms).map_or_else(dash, |ms| format!("{ms:.2} ms")));
            cells.push(median(|s| s.p99_ms).map_or_else(dash, |ms| format!("{ms:.2} ms")));
        }
        line(&mut text, &cells);
    }
    text.push_str("\n| Wanted | at most | measured | |\n|---|--:|--:|---|\n");
    for wanted in &WANTED {
        let ratios = samples.ratios(wanted.ours, wanted.theirs, MOST, wanted.figure);
        let Some(middle) = median(ratios.iter().copied()) else { continue };
        let met = wanted.at_most.map_or("", |most| if middle <= most { "met" } else { "missed" });
        line(&mut text, &[wanted.what.to_owned(), number(wanted.at_most), spread(&ratios), met.to_owned()]);
    }
    for ours in [HVM, HVM_FRESH] {
        beside_workerd(&mut text, samples, ours);
    }
    let stolen: Vec<_> = samples.stolen.iter().map(|share| format!("{:.1} %", share * 100.0)).collect();
    writeln!(text, "\nStolen by the hypervisor, in each round: {}.", stolen.join(", "))
        .expect("writing to a string");
    text
}

/// Whether ours is ahead of workerd in every figure; where not, in which it is behind.
fn beside_workerd(text: &mut String, samples: &LoadSamples, ours: &str) {
    let mut behind = Vec::new();
    let mut count = 0;
    let mut compare = |what: String, of: &dyn Fn(&str) -> Option<f64>, more_is_better: bool| {
        let (Some(ours), Some(theirs)) = (of(ours), of(WORKERD)) else { return };
        count += 1;
        if (more_is_better && ours <= theirs) || (!more_is_better && ours >= theirs) {
            behind.push(format!("{what} ({ours:.2} to {theirs:.2})"));
        }
    };
    for connections in CONNECTIONS {
        let figures: [(&str, Figure, bool); 4] = [
            ("CPU", |s| s.cpu, false),
            ("requests/s", |s| s.per_second, true),
            ("p50", |s| s.p50_ms, false),
            ("p99", |s| s.p99_ms, false),
        ];
        for (what, figure, more_is_better) in figures {
            let of = |server: &str| samples.median(server, connections, figure);
            compare(format!("{what} at {connections}"), &of, more_is_better);
        }
    }
    compare("memory".to_owned(), &|server| samples.starts(server, |s| s.resident_mib), false);
    compare("start to first answer".to_owned(), &|server| samples.starts(server, |s| s.cold_start_ms), false);
    if count == 0 {
        return;
    }
    let (measured, met) = match behind.is_empty() {
        true => (format!("**{count}**"), "met"),
        false => (format!("**{}**, behind in {}", count - behind.len(), behind.join(", ")), "missed"),
    };
    let what = format!("figures of {ours}, ahead of workerd");
    line(text, &[what, format!("all {count}"), measured, met.to_owned()]);
}

/// One deployment with different numbers of partitions, as Markdown.
#[must_use]
pub fn partition_table(samples: &PartitionSamples) -> String {
    let mut text = "| Partitions | requests/s | to one partition | CPU s per 100,000 requests | p99 \
                    | first answers: p50 | p99 | memory |\n|--:|--:|--:|--:|--:|--:|--:|--:|\n"
        .to_owned();
    let mut counts: Vec<u32> = samples.loads.iter().map(|sample| sample.partitions).collect();
    counts.sort_unstable();
    counts.dedup();
    let all = |count: u32, figure: fn(&PartitionSample) -> f64| {
        samples.loads.iter().filter(move |sample| sample.partitions == count).map(figure)
    };
    for count in &counts {
        let one = all(counts[0], |s| s.load.per_second);
        let ratios: Vec<f64> = all(*count, |s| s.load.per_second).zip(one).map(|(a, b)| a / b).collect();
        let middle = |figure| number(median(all(*count, figure)));
        let cells = [
            count.to_string(),
            median(all(*count, |s| s.load.per_second)).map_or_else(dash, |rate| format!("{rate:.0}")),
            spread(&ratios),
            middle(|s| s.load.cpu),
            format!("{} ms", middle(|s| s.load.p99_ms)),
            format!("{} ms", middle(|s| s.first_p50_ms)),
            format!("{} ms", middle(|s| s.first_p99_ms)),
            median(all(*count, |s| s.resident_mib)).map_or_else(dash, |mib| format!("{mib:.0} MiB")),
        ];
        line(&mut text, &cells);
    }
    text
}

impl LoadSamples {
    fn servers(&self) -> Vec<&'static str> {
        let mut servers: Vec<&'static str> = Vec::new();
        for sample in &self.loads {
            if !servers.contains(&sample.server) {
                servers.push(sample.server);
            }
        }
        servers
    }

    fn of(&self, server: &str, connections: u32) -> impl Iterator<Item = &LoadSample> {
        self.loads.iter().filter(move |s| s.server == server && s.connections == connections)
    }

    fn median(&self, server: &str, connections: u32, figure: Figure) -> Option<f64> {
        median(self.of(server, connections).map(figure))
    }

    fn starts(&self, server: &str, figure: fn(&StartSample) -> f64) -> Option<f64> {
        median(self.starts.iter().filter(|start| start.server == server).map(figure))
    }

    /// Of each round the ratio of one server to another.
    fn ratios(&self, server: &str, other: &str, connections: u32, figure: Figure) -> Vec<f64> {
        let ratio = |sample: &LoadSample| {
            let other = self.of(other, connections).find(|other| other.round == sample.round)?;
            Some(figure(sample) / figure(other))
        };
        self.of(server, connections).filter_map(ratio).collect()
    }
}

fn line(table: &mut String, cells: &[String]) {
    writeln!(table, "| {} |", cells.join(" | ")).expect("writing to a string");
}

fn dash() -> String {
    "–".to_owned()
}

fn number(number: Option<f64>) -> String {
    number.map_or_else(dash, |number| format!("{number:.2}"))
}

/// The median, in brackets the lowest and the highest.
fn spread(ratios: &[f64]) -> String {
    let mut sorted = ratios.to_vec();
    sorted.sort_by(f64::total_cmp);
    match (median(sorted.iter().copied()), sorted.as_slice()) {
        (Some(middle), [lowest, .., highest]) => format!("**{middle:.2}** ({lowest:.2}–{highest:.2})"),
        (Some(middle), _) => format!("**{middle:.2}**"),
        (None, _) => dash(),
    }
}

fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() % 2 {
        1 => Some(values[middle]),
        _ => Some(f64::midpoint(*values.get(middle.checked_sub(1)?)?, values[middle])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(server: &'static str, round: u32, cpu: f64) -> LoadSample {
        LoadSample { server, round, connections: MOST, cpu, per_second: 1e4, p50_ms: 1.0, p99_ms: 2.0 }
    }

    #[test]
    fn ratios_are_taken_within_a_round_and_compared_with_what_was_wanted() {
        let loads = vec![
            sample(FLOOR, 1, 1.0),
            sample(HVM, 1, 2.0),
            sample(FLOOR, 2, 2.0),
            sample(HVM, 2, 8.0),
            sample(FLOOR, 3, 1.0),
            sample(HVM, 3, 2.6),
        ];
        let text = load_table(&LoadSamples { loads, ..LoadSamples::default() });
        let has = |part: &str| assert!(text.contains(part), "{part} is not in\n{text}");
        has("| **HVM**, instance reused | 2.60 | **2.60** (2.00–4.00) | – | – | – | – |");
        has("| CPU per request, to bare hyper | 2.50 | **2.60** (2.00–4.00) | missed |");
        has("| bare hyper | 10.0 k | 1.00 ms | 2.00 ms |");
        assert!(!text.contains("workerd"), "nothing was measured of it");
    }

    #[test]
    fn figures_behind_workerd_are_named() {
        let loads = vec![sample(HVM, 1, 2.0), sample(HVM_FRESH, 1, 2.0), sample(WORKERD, 1, 3.0)];
        let loads = loads.into_iter().map(|s| LoadSample { p99_ms: s.cpu, p50_ms: s.cpu, ..s });
        let loads = loads.map(|s| LoadSample { per_second: 1e4 / s.cpu, ..s }).collect();
        let start =
            |server, cold_start_ms| StartSample { server, cold_start_ms, resident_mib: cold_start_ms };
        let starts = vec![start(HVM, 9.0), start(HVM_FRESH, 4.0), start(WORKERD, 5.0)];
        let text = load_table(&LoadSamples { loads, starts, stolen: vec![0.004] });
        let has = |part: &str| assert!(text.contains(part), "{part} is not in\n{text}");
        has("behind in memory (9.00 to 5.00), start to first answer (9.00 to 5.00) | missed |");
        has("in each round: 0.4 %.");
        has("| figures of **HVM**, instance per request, ahead of workerd | all 6 | **6** | met |");
    }
}
