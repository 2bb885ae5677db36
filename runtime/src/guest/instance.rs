//! One instance of a component in memory: its store, its exports and its place in the pool.

use std::sync::Arc;
use std::time::Instant;

use hvm_types::{ByteSize, Sequence};
use wasmtime::Store;
use wasmtime_wasi_http::p2::bindings::Proxy;

use super::dump::{discard_store, stopped};
use super::fuel::FuelStore;
use super::typed::Typed;
use super::{GuestSettings, GuestState};
use crate::blocks::Place;
use crate::capability::{Access, Effects};
use crate::memory::Leaves;
use crate::module::Linked;
use crate::observed::Observed;
use crate::progress::Progress;
use crate::state::ReadError;
use crate::{Module, Trap};

/// Most bytes that a guest passes to the host in one call: the host copies them first, in one go. More than the largest
/// batch of writes; less where the partition may not hold as much.
const MAX_HOST_CALL_BYTES: u64 = 5 << 20;

fn host_call_bytes(limit: ByteSize) -> usize {
    usize::try_from(MAX_HOST_CALL_BYTES.min(limit.0)).unwrap_or(usize::MAX)
}

/// One instance of a component.
pub(crate) struct Instance {
    // Order matters: the store's part of the pool is free before the place is.
    pub(crate) store: FuelStore,
    pub(super) http: Option<Proxy>,
    pub(super) typed: Option<Typed>,
    pub(super) answer_limit: ByteSize,
    /// When it answered its last request.
    pub(crate) idle_since: Instant,
    pub(super) _counted: Counted,
    pub(super) _place: Place,
}

/// Why no instance could be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{trap}")]
pub(crate) struct InstanceError {
    pub(crate) trap: Trap,
}

/// Shows an instance while it lives.
pub(super) struct Counted(Arc<Observed>);

impl Counted {
    fn new(observed: &Arc<Observed>) -> Self {
        observed.instance_came();
        Self(Arc::clone(observed))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.instance_went();
    }
}

impl Instance {
    /// Makes an instance. The guest's start code runs in it, preempted like any guest.
    pub(crate) async fn new(
        module: &Module,
        settings: &GuestSettings,
        place: Place,
        observed: &Arc<Observed>,
    ) -> Result<Self, InstanceError> {
        let counted = Counted::new(observed);
        let linked = module.linked(place.block).await;
        let linked = linked.map_err(|reason| InstanceError { trap: Trap::Wasm { reason } })?;
        let state = GuestState::new(settings).map_err(|trap| InstanceError { trap })?;
        let no_store =
            |error: wasmtime::Error| InstanceError { trap: Trap::Wasm { reason: error.to_string() } };
        let mut store = FuelStore::new(linked.pre.engine(), module, state).map_err(no_store)?;
        store.set_hostcall_fuel(host_call_bytes(settings.memory.limit()));
        // It also lets the guest give way. Whoever runs the guest stops it at its deadline by dropping the call.
        store.limiter_async(|state| &mut state.limiter);
        let (http, typed) = match Self::start(linked, &mut store).await {
            Ok(exports) => exports,
            Err(error) => {
                let trap = stopped(&mut store, error);
                store.charge();
                discard_store(store, (counted, place));
                return Err(InstanceError { trap });
            }
        };
        store.charge();
        let answer_limit = settings.answer_limit;
        Ok(Self {
            store,
            http,
            typed,
            answer_limit,
            idle_since: Instant::now(),
            _counted: counted,
            _place: place,
        })
    }

    /// Runs the start code, and finds the exports.
    async fn start(
        linked: &Linked,
        store: &mut Store<GuestState>,
    ) -> wasmtime::Result<(Option<Proxy>, Option<Typed>)> {
        let instance = linked.pre.instantiate_async(&mut *store).await?;
        let http = linked.http.as_ref().map(|indices| indices.load(&mut *store, &instance)).transpose()?;
        let typed = linked.typed.as_ref().map(|indices| indices.load(&mut *store, &instance)).transpose()?;
        Ok((http, typed))
    }
}

impl Instance {
    /// A request begins that may do this with the state.
    pub(crate) fn begin(&mut self, access: Access, progress: &Arc<Progress>, deadline: tokio::time::Instant) {
        let state = self.store.data_mut();
        state.limiter.begin_request(progress, deadline.into_std());
        state.outgoing.begin(access == Access::Command);
        state.keyvalue.begin(access);
    }

    /// The last record that the request which begins will see, where there is state.
    pub(crate) fn look(&mut self) -> Result<Option<Sequence>, ReadError> {
        self.store.data_mut().keyvalue.look()
    }

    /// What is charged for it.
    pub(super) fn held_bytes(&self) -> u64 {
        self.store.data().limiter.held()
    }

    /// Takes note that it is going.
    pub(super) fn leaves(&self) -> Leaves {
        Leaves::begin(self.store.data().limiter.account(), self.held_bytes())
    }

    /// The request has ended, well or not; returns what it did to the state.
    pub(crate) fn end(&mut self) -> Effects {
        self.store.charge();
        self.store.data_mut().end()
    }
}

impl Trap {
    /// What stopped a guest. A limit that it ran into explains the trap that followed.
    pub(crate) fn of(error: &wasmtime::Error, state: &GuestState) -> Self {
        if let Some(Self::Dumped) = error.downcast_ref() {
            return Self::Dumped;
        }
        if let Some(denied) = state.limiter.denied() {
            return denied;
        }
        if let Some(trap) = error.downcast_ref::<Self>() {
            return trap.clone();
        }
        if error.downcast_ref::<wasmtime_wasi::I32Exit>().is_some() {
            return Self::Exit;
        }
        if let Some(wasmtime::component::ResourceTableError::Full) = error.downcast_ref() {
            return Self::Resources { limit: super::state::MAX_RESOURCES };
        }
        match error.downcast_ref::<wasmtime::Trap>() {
            Some(wasmtime::Trap::StackOverflow) => Self::Stack,
            Some(trap) => Self::Wasm { reason: trap.to_string() },
            None => Self::Wasm { reason: error.root_cause().to_string() },
        }
    }
}
