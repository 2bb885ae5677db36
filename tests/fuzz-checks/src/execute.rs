//! Running a module before and after its rewriting, and modules to run.
//!
//! Compared are results, traps, memories and exported variables, call after call, until a call uses up its fuel or its
//! stack: how far it got then depends on what was added. A call without end is run on after the rewriting, to see that
//! it asks its host.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use arbitrary::{Arbitrary as _, Unstructured};
use wasm_smith::Config as Shape;
use wasmi::errors::ErrorKind;
use wasmi::{Config, Engine, Extern, Instance, Linker, Module, ResourceLimiter, Store, TrapCode, Val};
use wasmi_core::LimiterError;

use crate::interrupt::TICK_GROWTH;

/// Fuel for all calls of the original together: a unit is about an instruction.
const FUEL: u64 = 100_000;
/// Fuel for one call after the rewriting. Counting costs some; what had enough before has enough with this.
const FUEL_REWRITTEN: u64 = 8_000_000;
/// Fuel that may pass without a tick: nine units for each charge of the budget, and as much again, because the interpreter
/// counts otherwise.
const FUEL_WITHOUT_TICK: u64 = 2 * 9 * (1 << 17);
/// One of so many endless calls is run on, because each takes a tenth of a second.
const ENDLESS_TRIED: u64 = 8;
/// Most bytes of a memory and elements of a table.
const MAX_MEMORY_BYTES: usize = 256 << 10;
const MAX_TABLE_ELEMENTS: usize = 10_000;
/// Longest module that is shown as a whole.
const MAX_SHOWN_BYTES: usize = 4_096;

/// A valid module that these bytes choose.
pub(crate) fn chosen_module(input: &[u8]) -> Option<Vec<u8>> {
    let mut input = Unstructured::new(input);
    let mut shape = Shape::arbitrary(&mut input).ok()?;
    shape.export_everything = true;
    shape.min_funcs = 1;
    shape.max_funcs = shape.max_funcs.max(1);
    shape.max_types = shape.max_types.max(1);
    shape.max_imports = 0;
    shape.min_imports = 0;
    shape.available_imports = None;
    shape.exports = None;
    shape.module_shape = None;
    shape.max_instructions = 1_000;
    shape.max_memories = 2;
    shape.max_memory32_bytes = MAX_MEMORY_BYTES as u64;
    shape.max_memory64_bytes = MAX_MEMORY_BYTES as u128;
    shape.max_table_elements = MAX_TABLE_ELEMENTS as u64;
    shape.allow_invalid_funcs = false;
    shape.canonicalize_nans = false;
    // What guests may not use: see `FEATURES` of the rewriting.
    shape.gc_enabled = false;
    shape.exceptions_enabled = false;
    shape.threads_enabled = false;
    shape.custom_page_sizes_enabled = false;
    shape.custom_descriptors_enabled = false;
    shape.shared_everything_threads_enabled = false;
    shape.wide_arithmetic_enabled = false;
    Some(wasm_smith::Module::new(shape, &mut input).ok()?.to_bytes())
}

/// A module as a test can take it in.
pub(crate) fn shown(wasm: &[u8]) -> String {
    wasm.iter().take(MAX_SHOWN_BYTES).map(|byte| format!("\\{byte:02x}")).collect()
}

/// Runs both and compares what can be seen of them.
///
/// # Panics
/// Where the rewritten module does something else, or does not ask its host.
pub(crate) fn compare(original: &[u8], rewritten: &[u8]) {
    let Some((mut before, mut after)) = Run::start(original, FUEL).zip(Run::start(rewritten, FUEL_REWRITTEN))
    else {
        return;
    };
    match (before.instantiate(), after.instantiate()) {
        (Ok(()), Ok(())) => {}
        (Err(first), second) => {
            let second = second.err();
            let incomparable = first.is_limit() || second.as_ref().is_some_and(Stop::is_limit);
            assert!(
                incomparable || Some(&first) == second.as_ref(),
                "it started otherwise: {}",
                shown(original)
            );
            return;
        }
        (Ok(()), Err(Stop::Limit)) => return,
        (Ok(()), Err(stop)) => panic!("it does not start any more: {stop:?}: {}", shown(original)),
    }
    let counts_ticks = !has_table(original);
    for name in before.functions() {
        let asked = before.call(&name);
        if asked == Err(Stop::Fuel) {
            let tried = hash(original) % ENDLESS_TRIED == 0;
            if counts_ticks && tried {
                after.runs_on(&name, original);
            }
            return;
        }
        after.refuel();
        let answered = after.call(&name);
        if asked == Err(Stop::Limit) || answered == Err(Stop::Limit) {
            return;
        }
        assert_eq!(asked, answered, "`{name}` of {}", shown(original));
        assert_eq!(before.visible(), after.visible(), "after `{name}` of {}", shown(original));
    }
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

/// With elements in the table by which it asks, the interpreter refuses the growth before its limiter sees it.
fn has_table(wasm: &[u8]) -> bool {
    let mut payloads = wasmparser::Parser::new(0).parse_all(wasm);
    payloads.any(|payload| matches!(payload, Ok(wasmparser::Payload::TableSection(_))))
}

/// Why a call did not return.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    Fuel,
    /// The interpreter's own limits, which say nothing.
    Limit,
    Trap(TrapCode),
}

impl Stop {
    fn is_limit(&self) -> bool {
        matches!(self, Self::Fuel | Self::Limit)
    }

    fn of(error: &wasmi::Error) -> Self {
        match (error.kind(), error.as_trap_code()) {
            (_, Some(TrapCode::OutOfFuel)) => Self::Fuel,
            (_, Some(TrapCode::StackOverflow | TrapCode::GrowthOperationLimited)) => Self::Limit,
            (_, Some(code)) => Self::Trap(code),
            (ErrorKind::Fuel(_), _) => Self::Fuel,
            _ => Self::Limit,
        }
    }
}

/// Bounds what a module takes, and counts how often it asks.
#[derive(Default)]
struct Host {
    ticks: u64,
}

impl ResourceLimiter for Host {
    fn memory_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> Result<bool, LimiterError> {
        Ok(desired <= MAX_MEMORY_BYTES)
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        _: Option<usize>,
    ) -> Result<bool, LimiterError> {
        self.ticks += u64::from(desired - current == TICK_GROWTH as usize);
        Ok(desired <= MAX_TABLE_ELEMENTS)
    }

    fn instances(&self) -> usize {
        1
    }

    fn tables(&self) -> usize {
        100
    }

    fn memories(&self) -> usize {
        100
    }
}

/// A module and its instance.
struct Run {
    module: Module,
    store: Store<Host>,
    instance: Option<Instance>,
}

impl Run {
    /// `None` where the interpreter does not take it.
    fn start(wasm: &[u8], fuel: u64) -> Option<Self> {
        let mut config = Config::default();
        config.consume_fuel(true).wasm_multi_memory(true).wasm_memory64(true);
        config.wasm_simd(true).wasm_relaxed_simd(true).wasm_tail_call(true).wasm_extended_const(true);
        let engine = Engine::new(&config);
        let module = Module::new(&engine, wasm).ok()?;
        if module.imports().next().is_some() {
            return None;
        }
        let mut store = Store::new(&engine, Host::default());
        store.limiter(|host| host);
        store.set_fuel(fuel).ok()?;
        Some(Self { module, store, instance: None })
    }

    fn instantiate(&mut self) -> Result<(), Stop> {
        let linker = Linker::new(self.module.engine());
        let instance = linker.instantiate_and_start(&mut self.store, &self.module);
        self.instance = Some(instance.map_err(|error| Stop::of(&error))?);
        Ok(())
    }

    fn refuel(&mut self) {
        self.store.set_fuel(FUEL_REWRITTEN).expect("fuel is counted");
    }

    /// The names of exported functions.
    fn functions(&self) -> Vec<String> {
        let exports = self.module.exports();
        exports.filter(|export| export.ty().func().is_some()).map(|export| export.name().to_owned()).collect()
    }

    /// Calls a function with zeros, and returns the bits of its results.
    fn call(&mut self, name: &str) -> Result<Vec<String>, Stop> {
        let function = self.instance.and_then(|instance| instance.get_func(&self.store, name));
        let function = function.expect("what was exported still is");
        let kind = function.ty(&self.store);
        let arguments: Vec<Val> = kind.params().iter().map(|kind| Val::default(*kind)).collect();
        let mut results: Vec<Val> = kind.results().iter().map(|kind| Val::default(*kind)).collect();
        let called = function.call(&mut self.store, &arguments, &mut results);
        called.map_err(|error| Stop::of(&error))?;
        Ok(results.iter().map(bits).collect())
    }

    /// All exported memories and variables.
    fn visible(&self) -> Vec<(String, String)> {
        let instance = self.instance.expect("it was started");
        let exports = instance.exports(&self.store).filter_map(|export| {
            let name = export.name().to_owned();
            match export.into_extern() {
                Extern::Memory(memory) => Some((name, format!("{:x}", hash(memory.data(&self.store))))),
                Extern::Global(global) => Some((name, bits(&global.get(&self.store)))),
                Extern::Table(table) => Some((name, table.size(&self.store).to_string())),
                Extern::Func(_) => None,
            }
        });
        exports.collect()
    }

    /// Runs on what had no end, and looks how often it asks.
    fn runs_on(&mut self, name: &str, original: &[u8]) {
        self.refuel();
        let ticks = self.store.data().ticks;
        let _ = self.call(name);
        let fuel = FUEL_REWRITTEN - self.store.get_fuel().expect("fuel is counted");
        let ticks = self.store.data().ticks - ticks;
        assert!(
            fuel <= (ticks + 1) * FUEL_WITHOUT_TICK,
            "`{name}` used {fuel} and asked {ticks} times: {}",
            shown(original)
        );
    }
}

/// A value with all its bits: two that are no numbers may differ. References have no bits.
fn bits(value: &Val) -> String {
    match value {
        Val::F32(value) => format!("{:08x}", value.to_bits()),
        Val::F64(value) => format!("{:016x}", value.to_bits()),
        Val::I32(_) | Val::I64(_) | Val::V128(_) => format!("{value:?}"),
        Val::FuncRef(_) | Val::ExternRef(_) => "a reference".to_owned(),
    }
}
