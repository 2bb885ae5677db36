//! Valid modules that the fuzzer's bytes choose. They are not run here: an interpreter was tried for that, and answered
//! otherwise than the compiler that the product uses.

use arbitrary::{Arbitrary as _, Unstructured};
use wasm_smith::Config as Shape;

/// Most bytes of a memory and elements of a table.
const MAX_MEMORY_BYTES: usize = 256 << 10;
/// See [`MAX_MEMORY_BYTES`].
const MAX_TABLE_ELEMENTS: usize = 10_000;
/// Longest module that is shown as a whole.
const MAX_SHOWN_BYTES: usize = 4_096;

/// A valid module that these bytes choose.
pub(crate) fn chosen_module(input: &[u8]) -> Option<Vec<u8>> {
    let mut input = Unstructured::new(input);
    let mut shape = Shape::arbitrary(&mut input).ok()?;
    shape.export_everything = true;
    shape.min_funcs = 1;
    shape.max_funcs = shape.max_funcs.max(1);
    shape.max_types = shape.max_types.max(1);
    shape.max_imports = 0;
    shape.min_imports = 0;
    shape.available_imports = None;
    shape.exports = None;
    shape.module_shape = None;
    shape.max_instructions = 1_000;
    shape.max_memories = 2;
    shape.max_memory32_bytes = MAX_MEMORY_BYTES as u64;
    shape.max_memory64_bytes = MAX_MEMORY_BYTES as u128;
    shape.max_table_elements = MAX_TABLE_ELEMENTS as u64;
    shape.allow_invalid_funcs = false;
    shape.canonicalize_nans = false;
    // What guests may not use: see `FEATURES` of the rewriting.
    shape.gc_enabled = false;
    shape.exceptions_enabled = false;
    shape.threads_enabled = false;
    shape.custom_page_sizes_enabled = false;
    shape.custom_descriptors_enabled = false;
    shape.shared_everything_threads_enabled = false;
    shape.wide_arithmetic_enabled = false;
    Some(wasm_smith::Module::new(shape, &mut input).ok()?.to_bytes())
}

/// A module as a test can take it in.
pub(crate) fn shown(wasm: &[u8]) -> String {
    wasm.iter().take(MAX_SHOWN_BYTES).map(|byte| format!("\\{byte:02x}")).collect()
}
