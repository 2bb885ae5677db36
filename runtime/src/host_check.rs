//! What this host can carry: memory, memory mappings and address space, checked before anything is reserved.

use hvm_types::ByteSize;

use crate::StartError;

/// Memory mappings that one instance may need: its memories with their guards, its stack, its tables and the
/// parts of its memory image. A Rust component for `wasi:http` was measured to need 4 beside its stack.
const MAPPINGS_PER_INSTANCE: u64 = 8;
/// Mappings left to the rest of the process: compiled code, heaps, threads, the state engine.
const MAPPINGS_OF_PROCESS: u64 = 4096;
/// Address space of one instance: 4 GiB and the guard after it, its tables, its stack.
pub(crate) const ADDRESS_SPACE_PER_INSTANCE: u64 = (4 << 30) + (64 << 20);
/// What is taken to be the host's memory where it can't be read.
const UNKNOWN_MEMORY: ByteSize = ByteSize::mib(1024);

/// The host's memory.
pub(crate) fn memory_of_host() -> ByteSize {
    let read = || {
        let text = std::fs::read_to_string("/proc/meminfo").ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(ByteSize::kib(kib))
    };
    read().unwrap_or(UNKNOWN_MEMORY)
}

/// Checks that the host can carry this many instances.
pub(crate) fn check(instances: u32) -> Result<(), StartError> {
    let max_map_count =
        std::fs::read_to_string("/proc/sys/vm/max_map_count").ok().and_then(|text| text.trim().parse().ok());
    check_map_count(instances, max_map_count)?;
    let limit = rustix::process::getrlimit(rustix::process::Resource::As).current;
    check_address_space(instances, limit)
}

fn check_map_count(instances: u32, max_map_count: Option<u64>) -> Result<(), StartError> {
    let Some(allowed) = max_map_count else { return Ok(()) };
    let needed = u64::from(instances) * MAPPINGS_PER_INSTANCE + MAPPINGS_OF_PROCESS;
    if needed <= allowed {
        return Ok(());
    }
    let possible = allowed.saturating_sub(MAPPINGS_OF_PROCESS) / MAPPINGS_PER_INSTANCE;
    Err(StartError::MapCount { instances, needed, allowed, possible })
}

fn check_address_space(instances: u32, limit: Option<u64>) -> Result<(), StartError> {
    let needed = u64::from(instances) * ADDRESS_SPACE_PER_INSTANCE;
    match limit {
        Some(allowed) if needed > allowed => {
            Err(StartError::AddressSpace { instances, needed: ByteSize(needed), allowed: ByteSize(allowed) })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_few_mappings_are_refused_with_what_to_change() {
        assert!(check_map_count(1024, Some(65_530)).is_ok());
        assert!(check_map_count(1024, None).is_ok());
        let error = check_map_count(10_000, Some(65_530)).expect_err("too many").to_string();
        assert!(error.contains("vm.max_map_count=84096"), "{error}");
        assert!(error.contains("to 7679"), "{error}");
    }

    #[test]
    fn too_little_address_space_is_refused() {
        assert!(check_address_space(1024, None).is_ok());
        assert!(check_address_space(1024, Some(1 << 40)).is_err());
    }
}
