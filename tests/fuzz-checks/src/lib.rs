//! What must hold of untrusted input: one function for each kind of input, which takes any bytes and panics
//! where a property is broken.
//!
//! `fuzz/` feeds them what libFuzzer makes up, `tests/corpus.rs` what is committed in `fuzz/corpus`. Nothing
//! here is part of the product.

mod check;
#[cfg(feature = "choose")]
mod chosen;
mod component;
mod deployment_file;
mod image_documents;
mod image_tar;
mod interrupt;
mod interruptible;
mod manifest;
mod routing;
mod signature;
mod state;
mod state_file;

pub use check::{CHECKS, Check, check_named};
