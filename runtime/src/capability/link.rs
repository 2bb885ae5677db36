//! The capabilities in the linker: each interface, and the part of an instance's state that serves it.

use wasmtime::component::{HasData, Linker};

use super::bindings::wasi;
use super::{Config, ConfigView, Keyvalue, KeyvalueView, LoggingView, PartitionLog};
use crate::guest::GuestState;

/// Names the view types for the linker.
struct Has<T>(std::marker::PhantomData<T>);

impl HasData for Has<Keyvalue> {
    type Data<'a> = KeyvalueView<'a>;
}

impl HasData for Has<Config> {
    type Data<'a> = ConfigView<'a>;
}

impl HasData for Has<PartitionLog> {
    type Data<'a> = LoggingView<'a>;
}

/// Adds `wasi:keyvalue`, `wasi:config` and `wasi:logging`.
pub(crate) fn add_to_linker(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    wasi::keyvalue::store::add_to_linker::<_, Has<Keyvalue>>(linker, GuestState::keyvalue)?;
    wasi::keyvalue::atomics::add_to_linker::<_, Has<Keyvalue>>(linker, GuestState::keyvalue)?;
    wasi::keyvalue::batch::add_to_linker::<_, Has<Keyvalue>>(linker, GuestState::keyvalue)?;
    wasi::config::store::add_to_linker::<_, Has<Config>>(linker, GuestState::config)?;
    wasi::logging::logging::add_to_linker::<_, Has<PartitionLog>>(linker, GuestState::logging)
}
