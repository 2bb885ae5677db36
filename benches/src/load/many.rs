//! One deployment with few and with many partitions: the load is spread over all of them by their key.

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::LoadError;
use super::bench::say;
use super::client::Client;
use super::contestant::{HVM, Programs, deployment, hvm};
use super::samples::{LoadSample, PartitionSample, PartitionSamples, mebibytes, milliseconds};
use super::server::Server;
use super::wrk::Wrk;

/// Connections at the same time.
const CONNECTIONS: u32 = 64;
/// Load before the measurement.
const WARM_UP: Duration = Duration::from_secs(1);
/// Partitions whose first answer is timed, at most.
const FIRST_ANSWERS: u32 = 2_000;
/// Keys for each partition, so that every partition has some whatever their hash says.
const KEYS_PER_PARTITION: u32 = 4;
/// Memory of one partition in MB: room for the instances that all connections may need in one partition at once.
const MEMORY_MB: u32 = 64;
/// The scheduler places what fits by its limits; what all partitions use at once here is far less.
const ROOM: [&str; 2] = ["--memory", "1000000"];
/// Most different keys in one load.
const MAX_KEYS: u32 = 40_000;

/// What to measure.
#[derive(Debug, Clone)]
pub struct ManyPlan {
    /// Where the programs are.
    pub programs: Programs,
    /// A folder for what is made on the way.
    pub work: PathBuf,
    /// Rounds.
    pub rounds: u32,
    /// Length of each load.
    pub load: Duration,
    /// Numbers of partitions.
    pub partitions: Vec<u32>,
}

/// Measures each number of partitions. What goes on is told on stderr.
///
/// # Errors
/// Where the server does not start, or fails a request.
pub fn measure_partitions(plan: &ManyPlan) -> Result<PartitionSamples, LoadError> {
    let mut all = Vec::new();
    for partitions in &plan.partitions {
        say(&format!("preparing {partitions} partitions"));
        let work = plan.work.join(partitions.to_string());
        std::fs::create_dir_all(&work).map_err(LoadError::io("make a folder"))?;
        let text =
            deployment(&format!("partitions: {partitions}"), "reuse", MEMORY_MB, ", key: { header: x-key }");
        let contestant = hvm(HVM, &plan.programs, &work, &text, &ROOM)?;
        let keys = partitions.saturating_mul(KEYS_PER_PARTITION).min(MAX_KEYS);
        all.push((*partitions, contestant, Wrk::new(&plan.programs.wrk, &work, Some(keys))?));
    }
    let mut samples = PartitionSamples::default();
    for round in 1..=plan.rounds {
        for (partitions, contestant, wrk) in &all {
            let failed = |error| LoadError::new(format!("{partitions} partitions: {error}"));
            let server = contestant.start().map_err(failed)?;
            let first = first_answers(&server, *partitions)?;
            wrk.run(server.address, CONNECTIONS, WARM_UP).map_err(failed)?;
            let before = server.cpu()?;
            let answered = wrk.run(server.address, CONNECTIONS, plan.load).map_err(failed)?;
            let used = server.cpu()?.saturating_sub(before);
            let sample = PartitionSample {
                partitions: *partitions,
                load: LoadSample::new(HVM, round, CONNECTIONS, answered, used),
                first_p50_ms: percentile(&first, 50),
                first_p99_ms: percentile(&first, 99),
                resident_mib: mebibytes(server.resident()?),
            };
            say(&format!("round {round}: {sample:?}"));
            samples.loads.push(sample);
        }
    }
    Ok(samples)
}

/// Times of the first answers of different partitions, sorted.
fn first_answers(server: &Server, partitions: u32) -> Result<Vec<Duration>, LoadError> {
    let failed = || LoadError::io("ask a partition for the first time");
    let mut client = Client::connect(server.address).map_err(failed())?;
    let mut asked = HashSet::new();
    let mut times = Vec::new();
    for key in 0..partitions.min(FIRST_ANSWERS) {
        let began = Instant::now();
        let status = client.ask(key).map_err(failed())?;
        let time = began.elapsed();
        if status != 200 {
            return Err(LoadError::new(format!("a partition's first answer has status {status}")));
        }
        if asked.insert(client.header("hvm-partition")) {
            times.push(time);
        }
    }
    times.sort();
    Ok(times)
}

fn percentile(sorted: &[Duration], percent: usize) -> f64 {
    let at = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(at).map_or(0.0, |time| milliseconds(*time))
}
