//! What the HVM offers to guests beside WASI 0.2: one small module per capability, and the log that standard
//! output leads to.

mod bindings;
mod config;
mod keyvalue;
mod listing;
mod log;
mod logging;
mod stdio;

pub(crate) use config::{Config, ConfigView};
#[expect(unreachable_pub, reason = "the generated bindings export it again")]
pub use keyvalue::Bucket;
pub(crate) use keyvalue::{Access, Effects, Keyvalue, KeyvalueView};
pub(crate) use log::{PartitionLog, unix_millis};
pub(crate) use logging::LoggingView;
pub(crate) use stdio::GuestOutput;

use wasmtime::component::{HasData, Linker};

use crate::guest::GuestState;
use bindings::wasi;

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
