//! Everything that is offered to guests, in one place: all of WASI 0.2, `wasi:http` and our capabilities. What a
//! guest may do with it is decided by its grants, checked before compilation and again at each call.

use wasmtime::Engine;
use wasmtime::component::Linker;

use super::GuestState;

/// The linker of all guests.
pub(crate) fn linker(engine: &Engine) -> wasmtime::Result<Linker<GuestState>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    super::bounded::add_to_linker(&mut linker)?;
    crate::capability::add_to_linker(&mut linker)?;
    Ok(linker)
}
