//! The ways to interrupt a guest that are compared, each as a running instance of the kernels.

use std::time::{Duration, Instant};

use hvm_runtime::interrupt::interruptible;
use wasmtime::{Config, Engine, Instance, Module, OperatorCost, ResourceLimiterAsync, Store};

use crate::rewrite::{self, Check};

/// How long the host lets a guest run before it gives way; here there is nobody to give way to.
const TURN: Duration = Duration::from_millis(1);

/// A way to interrupt a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Variant {
    Neither,
    Fuel,
    Epochs,
    FlagEverywhere,
    LoadEverywhere,
    Counted,
    /// What `metering: deterministic` runs: counted, and fuel in slices.
    CountedWithFuel,
}

impl Variant {
    /// The first is what the others are compared with.
    pub(crate) const ALL: [Self; 7] = [
        Self::Neither,
        Self::Fuel,
        Self::Epochs,
        Self::FlagEverywhere,
        Self::LoadEverywhere,
        Self::Counted,
        Self::CountedWithFuel,
    ];

    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Neither => "neither",
            Self::Fuel => "fuel",
            Self::Epochs => "epochs",
            Self::FlagEverywhere => "a flag at every loop and function",
            Self::LoadEverywhere => "a load at every loop and function (stops only)",
            Self::Counted => "counted (ours)",
            Self::CountedWithFuel => "counted, with fuel (deterministic)",
        }
    }

    const fn has_fuel(self) -> bool {
        matches!(self, Self::Fuel | Self::CountedWithFuel)
    }

    fn rewritten(self, wasm: &[u8]) -> anyhow::Result<Vec<u8>> {
        Ok(match self {
            Self::Neither | Self::Fuel | Self::Epochs => wasm.to_vec(),
            Self::FlagEverywhere => rewrite::with(Check::Flag, wasm)?,
            Self::LoadEverywhere => rewrite::with(Check::Load, wasm)?,
            Self::Counted | Self::CountedWithFuel => interruptible(wasm)?,
        })
    }
}

/// Looks at the clock where the guest asks, as the HVM does.
pub(crate) struct Ticks {
    turn_began: Instant,
    pub(crate) number: u64,
    pub(crate) turns: u64,
}

#[async_trait::async_trait]
impl ResourceLimiterAsync for Ticks {
    async fn memory_growing(&mut self, _: usize, _: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(true)
    }

    async fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        _: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if desired - current == u32::MAX as usize {
            self.number += 1;
            if self.turn_began.elapsed() >= TURN {
                self.turns += 1;
                tokio::task::yield_now().await;
                self.turn_began = Instant::now();
            }
            return Ok(false);
        }
        Ok(true)
    }
}

/// Fuel of a slice: the HVM's, or what `HVM_FUEL_SLICE` says.
fn fuel_slice() -> anyhow::Result<u64> {
    Ok(std::env::var("HVM_FUEL_SLICE").map_or(Ok(1_000_000), |slice| slice.parse())?)
}

/// An instance of the kernels, interrupted in one way.
pub(crate) struct Running {
    pub(crate) variant: Variant,
    pub(crate) code_bytes: usize,
    pub(crate) compile_time: Duration,
    pub(crate) store: Store<Ticks>,
    instance: Instance,
    executor: tokio::runtime::Runtime,
}

impl Running {
    pub(crate) fn start(variant: Variant, wasm: &[u8]) -> anyhow::Result<Self> {
        let mut config = Config::new();
        config.wasm_branch_hinting(true).epoch_interruption(variant == Variant::Epochs);
        config.consume_fuel(variant.has_fuel()).parallel_compilation(false);
        if variant == Variant::CountedWithFuel {
            // As in the HVM: what a tick asks to grow is none of the guest's work.
            let mut cost = OperatorCost::new();
            cost.variable.table_grow_per_element = 0;
            config.operator_cost(cost);
        }
        let engine = Engine::new(&config)?;
        let before = crate::cpu();
        let module = Module::new(&engine, variant.rewritten(wasm)?)?;
        let compile_time = crate::cpu().saturating_sub(before);
        let text = module.text();
        let ticks = Ticks { turn_began: Instant::now(), number: 0, turns: 0 };
        let mut store = Store::new(&engine, ticks);
        store.limiter_async(|ticks| ticks);
        if variant == Variant::Epochs {
            store.set_epoch_deadline(u64::MAX / 2);
        }
        if variant.has_fuel() {
            store.set_fuel(u64::MAX)?;
        }
        if variant == Variant::CountedWithFuel {
            store.fuel_async_yield_interval(Some(fuel_slice()?))?;
        }
        let executor = tokio::runtime::Builder::new_current_thread().build()?;
        let instance = executor.block_on(Instance::new_async(&mut store, &module, &[]))?;
        Ok(Self { variant, code_bytes: text.len(), compile_time, store, instance, executor })
    }

    pub(crate) fn run(&mut self, kernel: &str, size: u32) -> anyhow::Result<u32> {
        let function = self.instance.get_typed_func::<u32, u32>(&mut self.store, kernel)?;
        Ok(self.executor.block_on(function.call_async(&mut self.store, size))?)
    }
}
