//! Components and modules, made interruptible: whatever comes out is valid, and where it can be run it does what it
//! did before and asks its host often enough.
//!
//! Bytes are taken as they are. With the feature `execute`, which only the fuzzer's project has, those that are no
//! module choose one (wasm-smith), and modules without imports are run, by an interpreter that has nothing in common
//! with the compiler that the product uses.

use wasmparser::Validator;

#[cfg(feature = "execute")]
use crate::execute;
use crate::interrupt::{InterruptibleError, interruptible};

pub(crate) fn check(input: &[u8]) {
    check_module(input);
    #[cfg(feature = "execute")]
    if !input.starts_with(b"\0asm")
        && let Some(module) = execute::chosen_module(input)
    {
        match interruptible(&module) {
            Ok(_) | Err(InterruptibleError::Full { .. }) => check_module(&module),
            Err(error) => panic!("a valid module was refused: {error}: {}", execute::shown(&module)),
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
    #[cfg(feature = "execute")]
    execute::compare(wasm, &rewritten);
}
