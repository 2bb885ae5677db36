//! Component bytes to compiled code: the one function that does it, in this process and in a child alike.

use wasmtime::Engine;

use crate::interrupt::interruptible;

/// Makes a component interruptible and compiles it. The code can be loaded by every engine of the same profile.
///
/// # Errors
/// Why it can't be made interruptible, or the compiler's reason to refuse it.
pub(super) fn code_of(engine: &Engine, component: &[u8]) -> Result<Vec<u8>, String> {
    let interruptible = interruptible(component).map_err(|error| error.to_string())?;
    engine.precompile_component(&interruptible).map_err(|error| format!("{error:#}"))
}
