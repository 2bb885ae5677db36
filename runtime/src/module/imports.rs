//! What a component imports and exports, read from its bytes before anything is compiled: an import that
//! nobody offers is refused by its name.

use hvm_types::{Capability, Digest};
use wasmparser::{Parser, Payload};

use crate::CompileError;

/// The interfaces of WASI 0.2 that are offered to every component, whatever its patch version.
const WASI: [(&str, &[&str]); 7] = [
    (
        "cli",
        &[
            "environment",
            "exit",
            "stdin",
            "stdout",
            "stderr",
            "terminal-input",
            "terminal-output",
            "terminal-stdin",
            "terminal-stdout",
            "terminal-stderr",
        ],
    ),
    ("clocks", &["monotonic-clock", "wall-clock"]),
    ("filesystem", &["types", "preopens"]),
    ("http", &["types", "outgoing-handler"]),
    ("io", &["error", "poll", "streams"]),
    ("random", &["random", "insecure", "insecure-seed"]),
    (
        "sockets",
        &[
            "network",
            "instance-network",
            "ip-name-lookup",
            "tcp",
            "tcp-create-socket",
            "udp",
            "udp-create-socket",
        ],
    ),
];

/// The drafts beside WASI 0.2. They have no compatible versions: theirs must match exactly.
const DRAFTS: [&str; 5] = [
    "wasi:keyvalue/store@0.2.0-draft",
    "wasi:keyvalue/atomics@0.2.0-draft",
    "wasi:keyvalue/batch@0.2.0-draft",
    "wasi:config/store@0.2.0-rc.1",
    "wasi:logging/logging@0.1.0-draft",
];

const HTTP_HANDLER: &str = "wasi:http/incoming-handler@0.2.";
const TYPED_HANDLER: &str = "hvm:app/handler@0.1.0";
/// First bytes of a component: the magic number, version 13, layer 1.
const COMPONENT_HEADER: [u8; 8] = *b"\0asm\x0d\0\x01\0";

/// The imports of a component that need a capability.
pub(super) type Required = Vec<(String, Capability)>;

/// What a component needs of its host, and how it can be asked.
#[derive(Debug)]
pub(super) struct Interface {
    pub(super) required: Required,
    /// It handles HTTP requests.
    pub(super) http: bool,
    /// It handles typed calls.
    pub(super) typed: bool,
    /// Most fuel of a way through one of its functions without a loop or a call.
    pub(super) longest_way: u64,
}

/// Reads a component's imports and exports and checks that they fit this host.
pub(super) fn check(digest: Digest, component: &[u8]) -> Result<Interface, CompileError> {
    if !component.starts_with(&COMPONENT_HEADER) {
        let reason = if component.starts_with(b"\0asm") {
            "it is a core module; make a component of it".to_owned()
        } else {
            "it does not begin as one".to_owned()
        };
        return Err(CompileError::NotAComponent { digest, reason });
    }
    let invalid = |error: wasmparser::BinaryReaderError| CompileError::NotAComponent {
        digest,
        reason: error.to_string(),
    };
    let mut interface = Interface { required: Required::new(), http: false, typed: false, longest_way: 0 };
    let mut depth = 0_u32;
    for payload in Parser::new(0).parse_all(component) {
        match payload.map_err(invalid)? {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::CodeSectionEntry(body) => {
                let way = way_through(&component[body.range()]);
                interface.longest_way = interface.longest_way.max(way);
            }
            Payload::ComponentImportSection(imports) if depth == 0 => {
                for import in imports {
                    let name = import.map_err(invalid)?.name.name;
                    check_import(digest, name)?;
                    if let Some(capability) = Capability::of_import(name) {
                        interface.required.push((name.to_owned(), capability));
                    }
                }
            }
            Payload::ComponentExportSection(exports) if depth == 0 => {
                for export in exports {
                    let name = export.map_err(invalid)?.name.name;
                    interface.http |= name.starts_with(HTTP_HANDLER);
                    interface.typed |= name == TYPED_HANDLER;
                }
            }
            _ => {}
        }
    }
    if interface.http || interface.typed { Ok(interface) } else { Err(CompileError::NoHandler { digest }) }
}

/// Most fuel of a way through a function's body on which no instruction comes twice: each has at least a byte. A bulk
/// operation, which begins with a byte of its own, is charged for its length too; where that is more than this,
/// wasmtime writes it down before.
fn way_through(body: &[u8]) -> u64 {
    const PREFIX: u8 = 0xfc;
    const SHORT_BULK_FUEL: usize = 128;
    let bulk = body.iter().filter(|byte| **byte == PREFIX).count();
    (body.len() + bulk * SHORT_BULK_FUEL) as u64
}

fn check_import(digest: Digest, import: &str) -> Result<(), CompileError> {
    if is_offered(import) {
        return Ok(());
    }
    let import = import.chars().take(200).collect();
    Err(CompileError::UnknownImport { digest, import })
}

fn is_offered(import: &str) -> bool {
    let in_wasi = || {
        let (path, version) = import.strip_prefix("wasi:")?.split_once('@')?;
        let (package, interface) = path.split_once('/')?;
        let patch = version.strip_prefix("0.2.")?;
        let (_, interfaces) = WASI.iter().find(|(name, _)| *name == package)?;
        let released = !patch.is_empty() && patch.bytes().all(|c| c.is_ascii_digit());
        (released && interfaces.contains(&interface)).then_some(())
    };
    DRAFTS.contains(&import) || in_wasi().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_patch_of_wasi_is_offered_and_only_the_exact_drafts() {
        for good in
            ["wasi:cli/environment@0.2.0", "wasi:http/types@0.2.12", "wasi:keyvalue/store@0.2.0-draft"]
        {
            assert!(is_offered(good), "{good} was refused");
        }
        for bad in [
            "wasi:cli/environment@0.3.0",
            "wasi:cli/environment",
            "wasi:cli/environment@0.2.0-rc1",
            "wasi:cli/other@0.2.0",
            "wasi:keyvalue/store@0.2.0-draft2",
            "wasi:keyvalue/watcher@0.2.0-draft",
            "example:unknown/thing",
        ] {
            assert!(!is_offered(bad), "{bad} was taken");
        }
    }

    #[test]
    fn what_is_no_component_says_so() {
        let digest = Digest::of(b"");
        let core = check(digest, b"\0asm\x01\0\0\0").expect_err("a core module").to_string();
        assert!(core.contains("core module"), "{core}");
        assert!(check(digest, b"#!/bin/sh").is_err());
        assert!(check(digest, b"").is_err());
    }
}
