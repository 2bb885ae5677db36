//! Components and modules, made interruptible: whatever comes out is valid, and can be made interruptible again.
//!
//! Bytes are taken as they are. With the feature `choose`, which only the fuzzer's project has, those that are no module
//! choose one (wasm-smith). That the code does what it did before is tested in the runtime.

use wasmparser::Validator;

#[cfg(feature = "choose")]
use crate::chosen;
use crate::interrupt::{InterruptibleError, interruptible};

pub(crate) fn check(input: &[u8]) {
    check_module(input);
    #[cfg(feature = "choose")]
    if !input.starts_with(b"\0asm")
        && let Some(module) = chosen::chosen_module(input)
    {
        match interruptible(&module) {
            Ok(_) | Err(InterruptibleError::Full { .. }) => check_module(&module),
            Err(error) => panic!("a valid module was refused: {error}: {}", chosen::shown(&module)),
        }
    }
}

fn check_module(wasm: &[u8]) {
    let Ok(rewritten) = interruptible(wasm) else { return };
    if let Err(error) = Validator::new().validate_all(&rewritten) {
        panic!("made invalid: {error}");
    }
    match interruptible(&rewritten) {
        Ok(_) | Err(InterruptibleError::Full { .. }) => {}
        Err(error) => panic!("what is interruptible can't be made so again: {error}"),
    }
}
