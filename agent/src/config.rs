//! What an agent is started with, and the defaults it measures on its machine.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use hvm_runtime::{Compiling, HostLimits};
use hvm_types::{ByteSize, CpuMhz, HostId};

/// Where the agent's API is offered.
#[derive(Debug, Clone)]
pub enum ApiListen {
    /// On a listener of its own.
    Own {
        /// Where it listens; port 0 takes a free one.
        address: SocketAddr,
        /// `host:port` as operators reach it; the listening address where it is missing.
        advertised: Option<String>,
    },
    /// On a server that the caller runs with [`crate::AgentHandle::service`].
    Merged {
        /// `host:port` of that server.
        advertised: String,
    },
}

/// Everything an agent is started with.
#[derive(Debug, Clone)]
pub struct AgentConfig {
    /// The host's name.
    pub host: HostId,
    /// Where images, state, logs and meters are kept. One agent per directory.
    pub data_dir: PathBuf,
    /// The scheduler, as `http://host:port`.
    pub scheduler: String,
    /// Where requests to apps arrive; port 0 takes a free one.
    pub ingress: SocketAddr,
    /// `host:port` of the ingress as other hosts reach it; the listening address where it is missing.
    pub advertised_ingress: Option<String>,
    /// Where the agent's API is offered.
    pub api: ApiListen,
    /// The trust policy, a TOML file or one public key. Without it every image is refused.
    pub trust: Option<PathBuf>,
    /// What constraints of deployments compare, such as `zone`.
    pub attributes: BTreeMap<String, String>,
    /// All processors together.
    pub cpu: CpuMhz,
    /// Memory that is offered to partitions: the sum of their limits. It may be more than the machine has, because
    /// partitions without requests hold none; together they never get more than three quarters of the machine's.
    pub memory: ByteSize,
    /// Worker threads of the HVM.
    pub workers: NonZeroUsize,
    /// How components are compiled. Default: in this process, without bounds.
    pub compiling: Compiling,
}

impl AgentConfig {
    /// An agent on loopback with free ports, offering what the machine has.
    #[must_use]
    pub fn new(host: HostId, data_dir: impl Into<PathBuf>, scheduler: impl Into<String>) -> Self {
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let workers = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        Self {
            host,
            data_dir: data_dir.into(),
            scheduler: scheduler.into(),
            ingress: loopback,
            advertised_ingress: None,
            api: ApiListen::Own { address: loopback, advertised: None },
            trust: None,
            attributes: BTreeMap::new(),
            cpu: measured_cpu(workers),
            memory: measured_memory(),
            workers,
            compiling: Compiling::InProcess,
        }
    }
}

/// Clock rate taken where the machine does not tell one.
const ASSUMED_MHZ_PER_CORE: u64 = 1_000;

/// Of the machine's memory, partitions may use three quarters; the rest is for the host's own work.
const MEMORY_SHARE: (u64, u64) = (3, 4);

fn measured_cpu(cores: NonZeroUsize) -> CpuMhz {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cores = u64::try_from(cores.get()).unwrap_or(1);
    let total = mhz_per_core(&text).unwrap_or(ASSUMED_MHZ_PER_CORE).saturating_mul(cores);
    CpuMhz(u32::try_from(total).unwrap_or(u32::MAX))
}

/// The part of the machine's memory that partitions may use.
pub(crate) fn measured_memory() -> ByteSize {
    ByteSize(HostLimits::read().memory.0 / MEMORY_SHARE.1 * MEMORY_SHARE.0)
}

/// The slowest core's rate as `/proc/cpuinfo` tells it (proc(5)), in whole MHz.
fn mhz_per_core(cpuinfo: &str) -> Option<u64> {
    cpuinfo
        .lines()
        .filter_map(|line| {
            line.strip_prefix("cpu MHz")?.split_once(':')?.1.trim().split('.').next()?.parse().ok()
        })
        .min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_core_counts_for_all() {
        let text = "processor\t: 0\ncpu MHz\t\t: 2100.123\nprocessor\t: 1\ncpu MHz\t\t: 1900.000\n";
        assert_eq!(mhz_per_core(text), Some(1900));
        assert_eq!(mhz_per_core("processor: 0\n"), None);
    }
}
