//! What was measured, as it is stored: one JSON file that the table is made from.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::LoadError;
use super::server::float;
use super::wrk::Answered;

/// All that was measured of the servers, side by side.
#[derive(Debug, Default)]
pub struct LoadSamples {
    pub(crate) loads: Vec<LoadSample>,
    pub(crate) starts: Vec<StartSample>,
    /// Of each round, the share of the machine's processor time that its hypervisor gave to others.
    pub(crate) stolen: Vec<f64>,
}

/// One server under load for a while.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LoadSample {
    pub(crate) server: &'static str,
    pub(crate) round: u32,
    pub(crate) connections: u32,
    /// Processor seconds of the server for 100,000 requests.
    pub(crate) cpu: f64,
    pub(crate) per_second: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
}

/// One life of a server.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StartSample {
    pub(crate) server: &'static str,
    pub(crate) cold_start_ms: f64,
    /// Resident memory after all load, in MiB.
    pub(crate) resident_mib: f64,
}

/// All that was measured of one deployment with different numbers of partitions.
#[derive(Debug, Default)]
pub struct PartitionSamples {
    pub(crate) loads: Vec<PartitionSample>,
}

/// One deployment under load spread over its partitions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PartitionSample {
    pub(crate) partitions: u32,
    pub(crate) load: LoadSample,
    /// The first answer of partitions that were not in memory.
    pub(crate) first_p50_ms: f64,
    pub(crate) first_p99_ms: f64,
    pub(crate) resident_mib: f64,
}

pub(crate) fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

pub(crate) fn mebibytes(bytes: u64) -> f64 {
    float(bytes >> 10) / 1024.0
}

impl LoadSample {
    pub(crate) fn new(
        server: &'static str,
        round: u32,
        connections: u32,
        answered: Answered,
        cpu: Duration,
    ) -> Self {
        let requests = float(answered.requests.max(1));
        Self {
            server,
            round,
            connections,
            cpu: cpu.as_secs_f64() * 1e5 / requests,
            per_second: requests / answered.time.as_secs_f64(),
            p50_ms: milliseconds(answered.p50),
            p99_ms: milliseconds(answered.p99),
        }
    }

    fn json(&self) -> Value {
        json!({
            "server": self.server, "round": self.round, "connections": self.connections,
            "cpu_s_per_100k": self.cpu, "requests_per_s": self.per_second,
            "p50_ms": self.p50_ms, "p99_ms": self.p99_ms,
        })
    }
}

impl LoadSamples {
    /// Writes everything to a file.
    ///
    /// # Errors
    /// Where it can't be written.
    pub fn save(&self, path: &Path) -> Result<(), LoadError> {
        let starts = self.starts.iter().map(|start| {
            json!({
                "server": start.server, "cold_start_ms": start.cold_start_ms,
                "resident_mib": start.resident_mib,
            })
        });
        let loads = self.loads.iter().map(LoadSample::json);
        save(
            path,
            &json!({ "loads": loads.collect::<Value>(), "starts": starts.collect::<Value>(), "stolen": self.stolen }),
        )
    }
}

impl PartitionSamples {
    /// Writes everything to a file.
    ///
    /// # Errors
    /// Where it can't be written.
    pub fn save(&self, path: &Path) -> Result<(), LoadError> {
        let loads = self.loads.iter().map(|sample| {
            json!({
                "partitions": sample.partitions, "load": sample.load.json(),
                "first_p50_ms": sample.first_p50_ms, "first_p99_ms": sample.first_p99_ms,
                "resident_mib": sample.resident_mib,
            })
        });
        save(path, &loads.collect::<Value>())
    }
}

fn save(path: &Path, value: &Value) -> Result<(), LoadError> {
    std::fs::write(path, format!("{value:#}\n")).map_err(LoadError::io(format!("write {}", path.display())))
}
