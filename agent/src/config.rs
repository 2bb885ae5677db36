//! What an agent is started with, and the defaults it measures on its machine.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use hvm_runtime::{Compiling, HostLimits, measured_cpu};
use hvm_types::{ByteSize, CpuMhz, HostId, Resources};

use crate::StartError;

use crate::state_store::StateStore;

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
    /// On a server that the caller runs with [`crate::AgentHandle::extend`].
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
    /// Where images, logs, meters and, unless `state` says something else, state are kept. One agent per directory.
    pub data_dir: PathBuf,
    /// Where the state of partitions is kept. A data directory stays with the store it began with.
    pub state: StateStore,
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
    /// What all processors count as together; a partition's `cpu` is a share of it.
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
            state: StateStore::Local,
            scheduler: scheduler.into(),
            ingress: loopback,
            advertised_ingress: None,
            api: ApiListen::Own { address: loopback, advertised: None },
            trust: None,
            attributes: BTreeMap::new(),
            cpu: measured_cpu(),
            memory: measured_memory(),
            workers,
            compiling: Compiling::InProcess,
        }
    }
}

/// Least that a host offers of its processors: shares are whole MHz, and less would not be divided any more.
const LEAST_CPU: CpuMhz = CpuMhz(100);

impl AgentConfig {
    /// Refuses to offer so little that nothing would ever be placed here.
    pub(crate) fn check_offer(&self) -> Result<(), StartError> {
        let least_memory = u64::from(Resources::default().memory);
        if self.memory.0 >> 20 < least_memory {
            return Err(StartError::LittleMemory { offered: self.memory, least: least_memory });
        }
        if self.cpu < LEAST_CPU {
            return Err(StartError::LittleCpu { offered: self.cpu, least: LEAST_CPU });
        }
        Ok(())
    }
}

/// Of the machine's memory, partitions may use three quarters; the rest is for the host's own work.
const MEMORY_SHARE: (u64, u64) = (3, 4);

/// The part of the machine's memory that partitions may use.
pub(crate) fn measured_memory() -> ByteSize {
    ByteSize(HostLimits::read().memory.0 / MEMORY_SHARE.1 * MEMORY_SHARE.0)
}
