//! How an HVM is set up. All of it has a default but the directory for compiled code.

use std::fmt;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hvm_types::{ByteSize, CpuMhz, Metering};

use crate::processor::{measured_cpu, processors};
use crate::worker::CpuRate;
use crate::{Compiling, HostLimits, LogSink, TracingSink};

/// Places for deterministic metering where nothing else is said: few deployments ask for it.
const DETERMINISTIC_INSTANCES: u32 = 128;

/// How an HVM is set up.
#[derive(Clone)]
pub struct HvmConfig {
    /// Threads that run partitions; each partition lives on one of them. Default: one per core.
    pub workers: NonZeroUsize,
    /// Directory for compiled components. It is made with mode 0700 and must belong to this user alone.
    pub code_cache: PathBuf,
    /// Most bytes that the directory may hold; the oldest go first. Default: 1 GiB.
    pub code_cache_size: ByteSize,
    /// What all processors of the host count as together. A partition's `cpu` is a share of it: with 500 of 4,000
    /// on two processors it may use a quarter of one. Default: what the machine tells, see [`measured_cpu`].
    pub cpu: CpuMhz,
    /// Memory that all partitions may hold together. Default: half of the host's.
    pub memory: ByteSize,
    /// Most instances in memory at the same time; one more waits until another can go. Each needs up to six
    /// memory mappings and 4 GiB of reserved address space. Default: what the host carries beside
    /// `max_deterministic_instances`, see [`HostLimits::most_instances`].
    pub max_instances: u32,
    /// The same for partitions whose metering is deterministic: their code is another, so they have places of their own.
    /// None is reserved before the first such component is compiled. Default: 128, or
    /// an eighth of what the host carries.
    pub max_deterministic_instances: u32,
    /// Largest component that is compiled. Default: 64 MiB.
    pub max_component: ByteSize,
    /// How components are compiled. Default: in this process, which bounds neither time nor memory; whoever runs
    /// components of others chooses a child process.
    pub compiling: Compiling,
    /// A partition without requests for this long keeps no instance. Default: 60 s.
    pub hibernate_after: Duration,
    /// Queries of one partition that run at the same time. Default: 8.
    pub queries_per_partition: u32,
    /// Requests of one stateless replica that run at the same time. Default: 16.
    pub requests_per_replica: u32,
    /// Where the lines of partitions go. Default: to `tracing`.
    pub log: Arc<dyn LogSink>,
}

impl HvmConfig {
    /// A setting that suits this host, with compiled code in `code_cache`.
    #[must_use]
    pub fn new(code_cache: impl Into<PathBuf>) -> Self {
        let limits = HostLimits::read();
        let places = limits.most_instances();
        let max_deterministic_instances = (places / 8).clamp(1, DETERMINISTIC_INSTANCES);
        Self {
            workers: processors(),
            code_cache: code_cache.into(),
            code_cache_size: ByteSize::mib(1024),
            cpu: measured_cpu(),
            memory: ByteSize(limits.memory.0 / 2),
            max_instances: places.saturating_sub(max_deterministic_instances).max(1),
            max_deterministic_instances,
            max_component: ByteSize::mib(64),
            compiling: Compiling::InProcess,
            hibernate_after: Duration::from_secs(60),
            queries_per_partition: 8,
            requests_per_replica: 16,
            log: Arc::new(TracingSink),
        }
    }
}

impl HvmConfig {
    /// Most instances in memory that are metered so.
    pub(crate) const fn instances(&self, metering: Metering) -> u32 {
        match metering {
            Metering::Time => self.max_instances,
            Metering::Deterministic => self.max_deterministic_instances,
        }
    }

    /// The rate at which a partition may use its processor; `None` where nothing limits it.
    pub(crate) fn cpu_rate(&self, share: Option<CpuMhz>) -> Option<CpuRate> {
        CpuRate::of(share?, self.cpu, processors().get())
    }
}

impl fmt::Debug for HvmConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HvmConfig")
            .field("workers", &self.workers)
            .field("code_cache", &self.code_cache)
            .field("memory", &self.memory)
            .field("compiling", &self.compiling)
            .field("max_instances", &self.max_instances)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_places_of_all_pools_together_are_those_that_the_host_carries() {
        let config = HvmConfig::new("code");
        let places = Metering::ALL.map(|metering| config.instances(metering));
        assert_eq!(places.iter().sum::<u32>(), HostLimits::read().most_instances());
        assert!(places[0] > places[1] && places[1] > 0, "{places:?}");
    }
}
