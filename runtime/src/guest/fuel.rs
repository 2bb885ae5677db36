//! The fuel that the guest of one instance is charged, where metering is deterministic.
//!
//! wasmtime's code counts in a register and writes the count down before every call, at every return and where a slice
//! of fuel is used up. So what is written down is exact where a guest returned, called the host or was stopped while it
//! gave way. A trap loses what was counted since: at most a slice up to the last loop, and from there the way through
//! one function to the trap, on which no instruction comes twice. That much is charged in full. It is a constant of the
//! component, so the charge is the same each time. Why so: `docs/decisions/0029-deterministic-metering.md`.

use std::ops::{Deref, DerefMut};

use hvm_types::Metering;
use wasmtime::{Engine, Store};

use super::GuestState;
use crate::Module;

/// Fuel of a slice: what a trap is charged in full, so not much. But several turns long, as its end is a yield to the
/// executor that does not count as giving way: ticks come before it.
const SLICE: u64 = 1_000_000;
/// What a way through a function may grow by when it is made interruptible, and those through what is appended.
const ADDED_TO_WAY: u64 = 1_000;
/// Most that is charged at once, more than any guest can use in the longest deadline. A bulk operation is charged for
/// its length before it turns out to be out of bounds: this bounds such lengths.
const MOST: u64 = 1 << 50;
/// What a store has. It is filled again after each request, so it never runs out.
const FULL: u64 = u64::MAX;

/// A store that charges its partition's meter with the fuel that its guest uses, at the latest when it goes.
pub(crate) struct FuelStore {
    store: Store<GuestState>,
    /// What a trap is charged beside what was written down. `None` where no fuel is counted.
    trap: Option<u64>,
    /// Of traps since the last charge.
    lost: u64,
}

impl FuelStore {
    /// A store in this engine, which the module was linked for.
    pub(super) fn new(engine: &Engine, module: &Module, state: GuestState) -> wasmtime::Result<Self> {
        let mut store = Store::new(engine, state);
        let mut trap = None;
        if module.metering() == Metering::Deterministic {
            store.set_fuel(FULL)?;
            store.fuel_async_yield_interval(Some(SLICE))?;
            trap = Some(SLICE + ADDED_TO_WAY + module.longest_way());
        }
        Ok(Self { store, trap, lost: 0 })
    }

    /// Takes note of what stopped the guest.
    pub(super) fn stopped_by(&mut self, error: &wasmtime::Error) {
        match error.downcast_ref::<wasmtime::Trap>() {
            // Written down before it, like a call; and no trap but an error of the host.
            Some(wasmtime::Trap::UnreachableCodeReached) | None => {}
            Some(_) => self.lost = self.lost.saturating_add(self.trap.unwrap_or_default()),
        }
    }

    /// Charges what was used since the last time. The next slice begins anew: what a request is charged does not depend
    /// on how far the one before came in its own.
    pub(super) fn charge(&mut self) {
        if self.trap.is_none() {
            return;
        }
        let written_down = FULL - self.store.get_fuel().expect("the engine counts fuel");
        let used = written_down.saturating_add(std::mem::take(&mut self.lost)).min(MOST);
        if used == 0 {
            return;
        }
        self.store.data().limiter.count_fuel(used);
        self.store.set_fuel(FULL).expect("the engine counts fuel");
    }
}

impl Drop for FuelStore {
    fn drop(&mut self) {
        self.charge();
    }
}

impl Deref for FuelStore {
    type Target = Store<GuestState>;

    fn deref(&self) -> &Self::Target {
        &self.store
    }
}

impl DerefMut for FuelStore {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.store
    }
}
