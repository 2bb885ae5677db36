//! A component linked with what is offered to guests, for one block of the pool's places. An engine takes only what was
//! loaded for it, so each block has its own.

use wasmtime::component::{Component, InstancePre, Linker};
use wasmtime_wasi_http::p2::bindings::ProxyIndices;

use super::imports::Interface;
use crate::blocks::RestLinker;
use crate::guest::{GuestState, TypedIndices};

/// A component that is ready to be instantiated.
pub(crate) struct Linked {
    pub(crate) pre: InstancePre<GuestState>,
    /// Where its exports are, of those that it has.
    pub(crate) http: Option<ProxyIndices>,
    pub(crate) typed: Option<TypedIndices>,
}

impl Linked {
    pub(super) fn new(
        linker: &Linker<GuestState>,
        component: &Component,
        exports: Exports,
    ) -> wasmtime::Result<Self> {
        let pre = linker.instantiate_pre(component)?;
        let http = exports.http.then(|| ProxyIndices::new(&pre)).transpose()?;
        let typed = exports.typed.then(|| TypedIndices::new(&pre)).transpose()?;
        Ok(Self { pre, http, typed })
    }

    fn exports(&self) -> Exports {
        Exports { http: self.http.is_some(), typed: self.typed.is_some() }
    }
}

/// Which interfaces a component exports.
#[derive(Debug, Clone, Copy)]
pub(super) struct Exports {
    http: bool,
    typed: bool,
}

impl From<&Interface> for Exports {
    fn from(interface: &Interface) -> Self {
        Self { http: interface.http, typed: interface.typed }
    }
}

/// A component for the rest of the places, loaded when it is first needed.
pub(super) struct LinkedLater {
    linker: RestLinker,
    linked: tokio::sync::OnceCell<Linked>,
}

impl LinkedLater {
    pub(super) fn new(linker: RestLinker) -> Self {
        Self { linker, linked: tokio::sync::OnceCell::new() }
    }

    /// It, made of the code of the first block's where it is not there yet.
    pub(super) async fn get(&self, first: &Linked) -> Result<&Linked, String> {
        let load = async || {
            let (linker, component) = (RestLinker::clone(&self.linker), first.pre.component().clone());
            let exports = first.exports();
            let loading = tokio::task::spawn_blocking(move || load(&linker, &component, exports));
            loading.await.map_err(|error| error.to_string())?
        };
        self.linked.get_or_try_init(load).await
    }
}

fn load(linker: &RestLinker, component: &Component, exports: Exports) -> Result<Linked, String> {
    let linker = linker.get().ok_or("the rest of the pool is not reserved")?;
    let load = || {
        let code = component.serialize()?;
        // SAFETY: wasmtime wrote these bytes just now, of a component that it runs already in an engine of the same
        // profile.
        #[allow(unsafe_code, reason = "loading code that runs in this process already")]
        let component = unsafe { Component::deserialize(linker.engine(), code)? };
        Linked::new(linker, &component, exports)
    };
    load().map_err(|error: wasmtime::Error| format!("its code does not load a second time: {error:#}"))
}
