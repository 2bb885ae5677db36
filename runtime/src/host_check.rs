//! What this host can carry: memory, memory mappings, address space and open files, read and checked before anything
//! is reserved. Every refusal and every advice names the command that changes it.

use std::fmt;
use std::path::Path;

use hvm_types::ByteSize;
use rustix::process::{Resource, getrlimit};

use crate::error::Possible;
use crate::{OpenFiles, StartError};

/// Mappings of one place in the pool: the parts of a memory before, in and after its copy-on-write image, and what is
/// reserved behind it (4 measured with a Rust component); a stack and its guard page (2).
const MAPPINGS_PER_INSTANCE: u64 = 6;
/// Mappings left to the rest of the process: compiled code, heaps, threads, the state engine.
const MAPPINGS_OF_PROCESS: u64 = 4_096;
/// Address space of one place: 4 GiB and the guard after it, its tables, its stack.
const ADDRESS_SPACE_PER_INSTANCE: u64 = (4 << 30) + (64 << 20);
/// Of the 128 TiB that x86-64 gives a process (Linux, `Documentation/arch/x86/x86_64/mm.rst`), the pool takes at most
/// three quarters.
const ADDRESS_SPACE_OF_POOL: u64 = 96 << 40;
/// Of a place, what a kernel that does not overcommit counts at once: tables and stack, which are writable.
const COMMITTED_PER_INSTANCE: u64 = 8 << 20;
/// A live instance of a small component was measured to keep this much resident. More places than memory has room for
/// would help nobody.
const RESIDENT_PER_INSTANCE: u64 = 64 << 10;
/// What is taken to be the host's memory where it can't be read.
const UNKNOWN_MEMORY: ByteSize = ByteSize::mib(1024);

/// What the system lets this process have. `None` is no limit, or one that can't be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostLimits {
    /// The machine's memory, or what the process's cgroup may use, if that is less.
    pub memory: ByteSize,
    /// `vm.max_map_count`.
    pub max_map_count: Option<u64>,
    /// The limit of the address space (`ulimit -v`), in bytes.
    pub address_space: Option<u64>,
    /// The limit of open files (`ulimit -n`).
    pub open_files: OpenFiles,
    /// Bytes that may still be committed, where the kernel does not overcommit (`vm.overcommit_memory` is 2).
    pub committable: Option<u64>,
}

/// A limit that is lower than it could be useful, and how to raise it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostAdvice(String);

impl fmt::Display for HostAdvice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl HostLimits {
    /// The limits as they are now.
    #[must_use]
    pub fn read() -> Self {
        let meminfo = read("/proc/meminfo");
        let field = |name| kibibytes(&meminfo, name);
        let machine = field("MemTotal:").map_or(UNKNOWN_MEMORY, ByteSize);
        let strict = number("/proc/sys/vm/overcommit_memory") == Some(2);
        let committable = || Some(field("CommitLimit:")?.saturating_sub(field("Committed_AS:")?));
        Self {
            memory: cgroup_memory().map_or(machine, |cgroup| ByteSize(cgroup.min(machine.0))),
            max_map_count: number("/proc/sys/vm/max_map_count"),
            address_space: getrlimit(Resource::As).current,
            open_files: OpenFiles::read(),
            committable: if strict { committable() } else { None },
        }
    }

    /// Most instances that can be in memory at the same time.
    #[must_use]
    pub fn most_instances(&self) -> u32 {
        let bounds = Bound::ALL.into_iter().filter_map(|bound| self.most_by(bound));
        bounds.min().unwrap_or(u32::MAX).min(self.most_by_machine())
    }

    /// What the machine itself carries, whatever it is set to.
    fn most_by_machine(&self) -> u32 {
        let by_addresses = ADDRESS_SPACE_OF_POOL / ADDRESS_SPACE_PER_INSTANCE;
        at_most(by_addresses.min(self.memory.0 / RESIDENT_PER_INSTANCE))
    }

    /// Most instances that one limit allows by itself, where there is such a limit.
    fn most_by(&self, bound: Bound) -> Option<u32> {
        Some(at_most(match bound {
            Bound::AddressSpace => self.address_space? / 2 / ADDRESS_SPACE_PER_INSTANCE,
            // Half of it is for everything else: code, heaps, other processes.
            Bound::Commit => self.committable? / 2 / COMMITTED_PER_INSTANCE,
            Bound::Mappings => {
                self.max_map_count?.saturating_sub(MAPPINGS_OF_PROCESS) / MAPPINGS_PER_INSTANCE
            }
        }))
    }

    /// Checks that this many instances fit. Of several limits that are too low, the one is named that allows fewest.
    pub(crate) fn check(&self, instances: u32) -> Result<(), StartError> {
        let places = u64::from(instances.max(1));
        let refused = Bound::ALL.into_iter().filter_map(|bound| {
            let error = self.refusal(bound, instances, places)?;
            Some((self.most_by(bound), error))
        });
        if let Some((_, error)) = refused.min_by_key(|(most, _)| *most) {
            return Err(error);
        }
        if places.saturating_mul(ADDRESS_SPACE_PER_INSTANCE) > ADDRESS_SPACE_OF_POOL {
            return Err(StartError::TooManyInstances { instances, possible: self.most_instances() });
        }
        Ok(())
    }

    fn refusal(&self, bound: Bound, instances: u32, places: u64) -> Option<StartError> {
        let possible = Possible(self.most_instances());
        match bound {
            Bound::AddressSpace => {
                let needed = places.saturating_mul(ADDRESS_SPACE_PER_INSTANCE);
                let allowed = self.address_space.filter(|allowed| needed > *allowed)?;
                let (needed, allowed) = (ByteSize(needed), ByteSize(allowed));
                Some(StartError::AddressSpace { instances, needed, allowed, possible })
            }
            Bound::Commit => {
                let needed = places * COMMITTED_PER_INSTANCE;
                let allowed = self.committable.filter(|allowed| needed > *allowed)?;
                let (needed, allowed) = (ByteSize(needed), ByteSize(allowed));
                Some(StartError::Commit { instances, needed, allowed, possible })
            }
            Bound::Mappings => {
                let needed = places * MAPPINGS_PER_INSTANCE + MAPPINGS_OF_PROCESS;
                let allowed = self.max_map_count.filter(|allowed| needed > *allowed)?;
                Some(StartError::MapCount { instances, needed, allowed, possible })
            }
        }
    }

    /// Limits that hold this host back although the machine would carry more, each with the command that raises it: the
    /// one first that has to be raised first.
    #[must_use]
    pub fn advice(&self) -> Vec<HostAdvice> {
        let machine = self.most_by_machine();
        let bounds = Bound::ALL.into_iter().filter_map(|bound| Some((self.most_by(bound)?, bound)));
        let mut bounds: Vec<_> = bounds.filter(|(most, _)| *most < machine).collect();
        bounds.sort_by_key(|(most, _)| *most);
        let mut advice: Vec<String> = Vec::new();
        for (most, bound) in bounds {
            let command = match bound {
                Bound::AddressSpace => {
                    "`ulimit -v unlimited` before (systemd: `LimitAS=infinity`)".to_owned()
                }
                Bound::Commit => "`sysctl -w vm.overcommit_memory=0`".to_owned(),
                Bound::Mappings => {
                    let mappings = u64::from(machine) * MAPPINGS_PER_INSTANCE + MAPPINGS_OF_PROCESS;
                    format!("`sysctl -w vm.max_map_count={mappings}`")
                }
            };
            let when = if advice.is_empty() { "" } else { "after that " };
            advice.push(format!(
                "{when}at most {most} instances at a time, where the machine would carry {machine}: run {command}"
            ));
        }
        advice.extend(self.open_files.advice());
        advice.into_iter().map(HostAdvice).collect()
    }
}

/// A limit of the system that bounds how many instances there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bound {
    AddressSpace,
    Commit,
    Mappings,
}

impl Bound {
    const ALL: [Self; 3] = [Self::AddressSpace, Self::Commit, Self::Mappings];
}

fn at_most(instances: u64) -> u32 {
    u32::try_from(instances).unwrap_or(u32::MAX)
}

fn read(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn number(path: impl AsRef<Path>) -> Option<u64> {
    read(path).trim().parse().ok()
}

/// A line of `/proc/meminfo` (proc(5)), in bytes.
fn kibibytes(meminfo: &str, name: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// The least that the process's cgroup and those above it may use (cgroups(7)), of version 2 or 1.
fn cgroup_memory() -> Option<u64> {
    let groups = read("/proc/self/cgroup");
    let limits = groups.lines().flat_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let (root, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            of if of.split(',').any(|one| one == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => return Vec::new(),
        };
        let inside = Path::new(path.trim_start_matches('/'));
        inside.ancestors().map(|group| Path::new(root).join(group).join(file)).collect()
    });
    limits.filter_map(number).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine with 24 GiB and a kernel as it comes.
    const COMMON: HostLimits = HostLimits {
        memory: ByteSize::mib(24 << 10),
        max_map_count: Some(65_530),
        address_space: None,
        open_files: OpenFiles::of(1 << 20),
        committable: None,
    };

    #[test]
    fn a_common_machine_carries_ten_thousand_instances_and_is_told_how_to_carry_more() {
        let most = COMMON.most_instances();
        assert_eq!(most, 10_239);
        assert!(COMMON.check(most).is_ok());
        let error = COMMON.check(most + 1).expect_err("one too many").to_string();
        assert!(error.contains("sysctl -w vm.max_map_count=65536") && error.contains("10239"), "{error}");
        let advice = COMMON.advice();
        assert!(
            advice.len() == 1 && advice[0].to_string().contains("sysctl -w vm.max_map_count="),
            "{advice:?}"
        );
        let raised = HostLimits { max_map_count: Some(1 << 20), ..COMMON };
        assert!(raised.most_instances() > 20_000 && raised.advice().is_empty(), "{raised:?}");
        let error = raised.check(u32::MAX).expect_err("more than there are addresses").to_string();
        assert!(error.contains("lower `max_instances`"), "{error}");
    }

    #[test]
    fn little_memory_carries_few_instances() {
        let small = HostLimits { memory: ByteSize::mib(64), ..COMMON };
        assert_eq!(small.most_instances(), 1_024);
        assert!(small.advice().is_empty());
    }

    #[test]
    fn too_little_address_space_is_refused_with_what_to_change() {
        let bound = HostLimits { address_space: Some(1 << 40), ..COMMON };
        assert!(bound.check(1_024).expect_err("too many").to_string().contains("ulimit -v unlimited"));
        assert!(bound.check(bound.most_instances()).is_ok());
        let advice: Vec<_> = bound.advice().iter().map(ToString::to_string).collect();
        let [first, second] = advice.as_slice() else { panic!("{advice:?}") };
        assert!(
            first.starts_with("at most 126 instances") && first.contains("ulimit -v unlimited"),
            "{first}"
        );
        assert!(second.starts_with("after that at most 10239 instances"), "{second}");
        assert!(second.contains("vm.max_map_count"), "{second}");
    }

    #[test]
    fn the_limit_is_named_first_that_allows_fewest() {
        let both = HostLimits { address_space: Some(4_000_000 << 10), max_map_count: Some(1_000), ..COMMON };
        let error = both.check(2).expect_err("neither is enough").to_string();
        assert!(error.contains("ulimit -v unlimited"), "{error}");
        assert!(!error.contains("max_map_count") && !error.contains("to 0"), "{error}");
        let mappings = HostLimits { address_space: Some(1 << 40), max_map_count: Some(4_200), ..COMMON };
        let error = mappings.check(1_000).expect_err("neither is enough").to_string();
        assert!(error.contains("vm.max_map_count=10096") && error.contains("to 17 together"), "{error}");
        let advice: Vec<_> = mappings.advice().iter().map(ToString::to_string).collect();
        assert!(advice[0].contains("max_map_count") && advice[1].contains("after that"), "{advice:?}");
    }

    #[test]
    fn a_kernel_that_does_not_overcommit_carries_what_it_commits() {
        let strict = HostLimits { committable: Some(16 << 30), ..COMMON };
        assert_eq!(strict.most_instances(), 1_024);
        let error = strict.check(4_096).expect_err("too many").to_string();
        assert!(error.contains("sysctl -w vm.overcommit_memory=0"), "{error}");
    }

    #[test]
    fn few_open_files_are_advised_against() {
        let advice =
            HostLimits { open_files: OpenFiles::of(1_024), memory: ByteSize::mib(64), ..COMMON }.advice();
        assert!(advice.len() == 1 && advice[0].to_string().contains("ulimit -n 16384"), "{advice:?}");
    }

    #[test]
    fn this_hosts_limits_can_be_read() {
        let limits = HostLimits::read();
        assert!(limits.memory > ByteSize::mib(16) && limits.most_instances() > 0, "{limits:?}");
    }
}
