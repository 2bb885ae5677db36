//! The engines: how components are compiled and where their instances live. For each way of
//! metering there is one, and a second one where a pool needs its rest; they share nothing.
//!
//! Why they are as they are stands in `docs/decisions/0020-hvm-execution.md` and `0029-deterministic-metering.md`.

use hvm_types::{ByteSize, Metering};
use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, OperatorCost, PoolingAllocationConfig};

use crate::StartError;
use crate::memory::{MAX_MEMORIES, MAX_TABLES};

/// Stack of a guest; what exceeds it is a trap.
const WASM_STACK: usize = 1 << 20;
/// Stack of the fiber that a guest runs on: the guest's and what host functions need.
const FIBER_STACK: usize = 2 << 20;
/// Most elements of a table. Large JavaScript engines use about 20,000.
pub(crate) const TABLE_ELEMENTS: usize = 65_536;
/// Largest linear memory: all that 32-bit addresses reach.
const MEMORY: usize = 4 << 30;
/// Slots that keep their pages when their instance goes, so that the next one starts warm.
const WARM_SLOTS: u32 = 64;
/// Bytes of a warm slot that stay resident: they are zeroed instead of returned to the system.
const WARM_BYTES: usize = 1 << 20;
/// Bytes of a warm slot's table and stack that stay resident.
const WARM_TABLE_BYTES: usize = 64 << 10;
/// Stacks beside one for each instance: for guests that the host calls again from within a call.
const SPARE_STACKS: u32 = 64;
/// Bytes of metadata of one instance.
const INSTANCE_METADATA: usize = 1 << 20;
/// Core modules in one component.
const CORE_INSTANCES: u32 = 64;
/// Tables that an admission permit stands for; a component with more takes several permits. They take address space
/// only as far as they are used, and no mapping of their own.
pub(crate) const TABLES_PER_PERMIT: u32 = MAX_TABLES;
/// Memories that an admission permit stands for.
pub(crate) const MEMORIES_PER_PERMIT: u32 = 1;

/// Makes an engine with room for this many instances. Whoever asks has checked that the host carries them.
pub(crate) fn build(metering: Metering, instances: u32) -> Result<Engine, StartError> {
    let mut config = profile(metering);
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(instances)));
    Engine::new(&config).map_err(|error| StartError::Engine { instances, reason: format!("{error:#}") })
}

/// Makes an engine that compiles for the one that [`build`] makes, and reserves nothing to run in.
pub(crate) fn for_compiling(metering: Metering, parallel: bool) -> wasmtime::Result<Engine> {
    let mut config = profile(metering);
    config.allocation_strategy(InstanceAllocationStrategy::OnDemand).parallel_compilation(parallel);
    Engine::new(&config)
}

/// What decides about the code of guests.
fn profile(metering: Metering) -> Config {
    // Growing a table is how a guest asks for its turn: the elements that it names are none of its work.
    let mut cost = OperatorCost::new();
    cost.variable.table_grow_per_element = 0;
    let mut config = Config::new();
    config
        // Guests count their own work (see `interrupt`), in branches that are marked as rarely taken.
        .epoch_interruption(false)
        .consume_fuel(metering == Metering::Deterministic)
        .operator_cost(cost)
        .wasm_branch_hinting(true)
        // WASI 0.2 has no concurrent calls; without the machinery for them a call costs a third.
        .concurrency_support(false)
        .max_wasm_stack(WASM_STACK)
        .async_stack_size(FIBER_STACK)
        // Shared memories can't be limited, and a garbage-collected heap (which exceptions need too) is not counted.
        .wasm_threads(false)
        .wasm_exceptions(false)
        .gc_support(false)
        .memory_init_cow(true)
        // Who asks for a core dump gets it of the next trap. A trap costs a second walk of the stack by it; all else
        // costs nothing.
        .coredump_on_trap(true);
    config
}

fn pool(instances: u32) -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances)
        .total_core_instances(instances.saturating_mul(CORE_INSTANCES))
        .total_memories(instances.saturating_mul(MEMORIES_PER_PERMIT))
        .total_tables(instances.saturating_mul(TABLES_PER_PERMIT))
        // A store keeps the stack of its last call until it goes.
        .total_stacks(instances.saturating_add(SPARE_STACKS))
        .max_core_instances_per_component(CORE_INSTANCES)
        .max_memories_per_component(MAX_MEMORIES)
        .max_tables_per_component(MAX_TABLES)
        .max_tables_per_module(MAX_TABLES)
        .max_memories_per_module(MAX_MEMORIES)
        .max_component_instance_size(INSTANCE_METADATA)
        .max_core_instance_size(INSTANCE_METADATA)
        .table_elements(TABLE_ELEMENTS)
        .max_memory_size(MEMORY)
        .max_unused_warm_slots(WARM_SLOTS.min(instances))
        .linear_memory_keep_resident(WARM_BYTES)
        .table_keep_resident(WARM_TABLE_BYTES)
        .async_stack_keep_resident(WARM_TABLE_BYTES)
        .pagemap_scan(Enabled::Auto);
    pool
}

/// What one linear memory may have at most.
pub(crate) const fn max_memory() -> ByteSize {
    ByteSize(MEMORY as u64)
}

#[cfg(test)]
mod tests {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};

    use super::*;

    #[test]
    fn code_of_the_compiling_engine_fits_the_one_that_runs_it_and_no_other() {
        let profile = |engine: &Engine| {
            let mut hash = DefaultHasher::new();
            engine.precompile_compatibility_hash().hash(&mut hash);
            hash.finish()
        };
        let profiles = Metering::ALL.map(|metering| {
            let running = profile(&build(metering, 4).expect("this host has room for four"));
            for parallel in [false, true] {
                let compiling = for_compiling(metering, parallel).expect("an engine");
                assert_eq!(profile(&compiling), running, "{metering:?}, parallel: {parallel}");
            }
            running
        });
        assert_ne!(profiles[0], profiles[1]);
    }
}
