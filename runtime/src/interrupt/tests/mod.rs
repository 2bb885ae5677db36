//! The rewriting, tried with wasmtime itself: what runs without end is asked, what ends does what it did before.

mod bulk;
mod endless;
mod same;
mod shape;

use wasmtime::{Config, Engine, Instance, Linker, Module, ResourceLimiter, Store};

use super::{TICK_GROWTH, interruptible};

/// Counts ticks, and ends the guest at the last one that it may have.
pub(super) struct Ticks {
    pub(super) seen: u64,
    pub(super) last: u64,
}

#[derive(Debug, thiserror::Error)]
#[error("that was the last tick")]
pub(super) struct LastTick;

impl ResourceLimiter for Ticks {
    fn memory_growing(&mut self, _: usize, _: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(true)
    }

    fn table_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        if desired - current != TICK_GROWTH as usize {
            return Ok(true);
        }
        self.seen += 1;
        if self.seen >= self.last { Err(LastTick.into()) } else { Ok(false) }
    }
}

/// An engine that counts every instruction, to see how many pass between two ticks.
pub(super) fn engine() -> Engine {
    let mut config = Config::new();
    config.wasm_branch_hinting(true).gc_support(false).wasm_threads(false).wasm_exceptions(false);
    config.consume_fuel(true);
    Engine::new(&config).expect("a valid setting")
}

/// Fuel that no test uses up.
pub(super) const FUEL: u64 = 1 << 48;

pub(super) fn store(engine: &Engine, last_tick: u64) -> Store<Ticks> {
    let mut store = Store::new(engine, Ticks { seen: 0, last: last_tick });
    store.limiter(|ticks| ticks);
    store.set_fuel(FUEL).expect("fuel is counted");
    store
}

pub(super) fn assemble(text: &str) -> Vec<u8> {
    wat::parse_str(text).expect("valid text")
}

/// An interruptible instance; its imports come from itself, by the names of its exports.
pub(super) fn start(store: &mut Store<Ticks>, wasm: &[u8]) -> wasmtime::Result<Instance> {
    let module = Module::new(store.engine(), interruptible(wasm).expect("it can be made interruptible"))?;
    Linker::new(store.engine()).instantiate(store, &module)
}
