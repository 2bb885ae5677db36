//! A component section by section: core modules are rewritten, nested components gone through, everything else
//! kept byte for byte.

use wasm_encoder::Encode as _;
use wasmparser::{BinaryReader, Validator, WasmFeatures};

use super::{InterruptibleError, rewrite};

/// The first bytes of every module and component: magic, version and layer.
const HEADER_BYTES: usize = 8;
const CORE_MODULE: [u8; HEADER_BYTES] = *b"\0asm\x01\0\0\0";
/// Sections of a component that hold a core module or a component.
const CORE_MODULE_SECTION: u8 = 1;
const COMPONENT_SECTION: u8 = 4;

/// What guests may use: what wasmtime offers, without garbage collection, exceptions and threads, whose
/// instructions are not known here.
const FEATURES: WasmFeatures = WasmFeatures::WASM2
    .union(WasmFeatures::TAIL_CALL)
    .union(WasmFeatures::MULTI_MEMORY)
    .union(WasmFeatures::MEMORY64)
    .union(WasmFeatures::RELAXED_SIMD)
    .union(WasmFeatures::EXTENDED_CONST)
    .union(WasmFeatures::COMPONENT_MODEL);

/// Makes a component, or a core module, interruptible: its code counts its own work and asks the host from time to
/// time. A pure function of its bytes.
///
/// # Errors
/// When it is not valid: what is appended must not be in reach of code that refers to what it does not have.
pub fn interruptible(bytes: &[u8]) -> Result<Vec<u8>, InterruptibleError> {
    Validator::new_with_features(FEATURES).validate_all(bytes)?;
    let rewritten = rewrite_any(bytes, 0)?;
    #[cfg(debug_assertions)]
    if let Err(error) = Validator::new_with_features(FEATURES).validate_all(&rewritten) {
        tracing::error!(%error, "a component became invalid when it was made interruptible");
    }
    Ok(rewritten)
}

/// The validator has bounded how deep components are nested.
fn rewrite_any(bytes: &[u8], offset: usize) -> Result<Vec<u8>, InterruptibleError> {
    if bytes.starts_with(&CORE_MODULE) {
        return rewrite::module(bytes, offset);
    }
    let mut out = Vec::with_capacity(bytes.len() + bytes.len() / 4);
    let (header, sections) = bytes.split_at_checked(HEADER_BYTES).unwrap_or((bytes, &[]));
    out.extend_from_slice(header);
    let mut reader = BinaryReader::new(sections, offset + HEADER_BYTES);
    while !reader.eof() {
        let id = reader.read_u8()?;
        let content = reader.read_reader()?;
        let start = content.original_position();
        let content = &bytes[start - offset..reader.original_position() - offset];
        out.push(id);
        match id {
            CORE_MODULE_SECTION | COMPONENT_SECTION => rewrite_any(content, start)?.encode(&mut out),
            _ => content.encode(&mut out),
        }
    }
    Ok(out)
}
