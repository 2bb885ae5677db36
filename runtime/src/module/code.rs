//! Component bytes to compiled code: the one function that does it, in this process and in a child alike.

use wasmtime::Engine;

/// Compiles a component. The code can be loaded by every engine of the same profile.
///
/// # Errors
/// The compiler's reason to refuse it.
pub(super) fn code_of(engine: &Engine, component: &[u8]) -> Result<Vec<u8>, String> {
    engine.precompile_component(component).map_err(|error| format!("{error:#}"))
}
