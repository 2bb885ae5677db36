//! What a component asks of its host, read from its top-level imports, and whether it may have it.
//!
//! The agent calls the same functions before it compiles as `appimage-tool pack` does before it packs.

use std::collections::BTreeSet;

use hvm_types::{Capability, PackageName};
use wasmparser::{ComponentExternalKind, ComponentTypeRef, Encoding, Parser, Payload, TypeBounds};

/// What WASI 0.2 itself offers (versions 0.2.0 to 0.2.12, without what is marked unstable there). Everything
/// of it is linked for every component, with empty grants.
const WASI: [(&str, &[&str]); 7] = [
    (
        "wasi:cli",
        &[
            "environment",
            "exit",
            "stderr",
            "stdin",
            "stdout",
            "terminal-input",
            "terminal-output",
            "terminal-stderr",
            "terminal-stdin",
            "terminal-stdout",
        ],
    ),
    ("wasi:clocks", &["monotonic-clock", "wall-clock"]),
    ("wasi:filesystem", &["preopens", "types"]),
    ("wasi:http", &["types"]),
    ("wasi:io", &["error", "poll", "streams"]),
    ("wasi:random", &["insecure", "insecure-seed", "random"]),
    (
        "wasi:sockets",
        &[
            "instance-network",
            "ip-name-lookup",
            "network",
            "tcp",
            "tcp-create-socket",
            "udp",
            "udp-create-socket",
        ],
    ),
];

/// What goes beyond, each in the one version there is (`guest-sdk/wit`).
const CAPABILITY_INTERFACES: [&str; 5] = [
    "wasi:keyvalue/store@0.2.0-draft",
    "wasi:keyvalue/atomics@0.2.0-draft",
    "wasi:keyvalue/batch@0.2.0-draft",
    "wasi:config/store@0.2.0-rc.1",
    "wasi:logging/logging@0.1.0-draft",
];

const OUTGOING_HANDLER: &str = "wasi:http/outgoing-handler";
const INCOMING_HANDLER: &str = "wasi:http/incoming-handler";
/// Our own typed world, in the one version there is (`guest-sdk/wit`).
const TYPED_HANDLER: &str = "hvm:app/handler@0.1.0";

/// Why a component can't be packed or run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ComponentError {
    /// It is no WebAssembly.
    #[error("it is not a WebAssembly component: {reason}")]
    Damaged {
        /// What the parser said.
        reason: String,
    },
    /// It is a module, which knows nothing of typed interfaces.
    #[error(
        "it is a core module, not a component: build it for wasm32-wasip2, or make a component of it with \
         `wasm-tools component new`"
    )]
    CoreModule,
    /// It asks for something that no host offers.
    #[error("it imports {import}, which no host offers")]
    UnknownImport {
        /// The import.
        import: String,
    },
    /// It asks for something that its manifest does not request.
    #[error(
        "it imports {import}, which needs the capability {capability}: add \"{capability}\" to the capabilities \
         of the package in appimage.toml"
    )]
    NotRequested {
        /// The import.
        import: String,
        /// What it needs.
        capability: Capability,
    },
    /// It can't be called.
    #[error(
        "it exports neither {INCOMING_HANDLER}@0.2.x nor {TYPED_HANDLER}, by which a host hands it requests"
    )]
    NoHandler,
}

/// A capability that an image requests and the deployment does not grant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "package {package} requests the capability {capability}, which the deployment does not grant: add it to the \
     task's grants"
)]
pub struct GrantError {
    /// The package.
    pub package: PackageName,
    /// What it requests.
    pub capability: Capability,
}

/// The names of a component's top-level imports that a host has to provide, in the component's order.
///
/// # Errors
/// Where the bytes are no component.
pub fn imports_of(component: &[u8]) -> Result<Vec<String>, ComponentError> {
    Interface::read(component).map(|interface| interface.imports)
}

/// The capabilities that a component's imports need.
///
/// # Errors
/// Where the bytes are no component, or where it imports something that no host offers.
pub fn required_capabilities(component: &[u8]) -> Result<BTreeSet<Capability>, ComponentError> {
    let mut required = BTreeSet::new();
    for import in imports_of(component)? {
        required.extend(capability_of(import)?);
    }
    Ok(required)
}

/// Checks that a component exports a handler, of HTTP requests or of typed calls, and imports only WASI 0.2 and what is requested. Its
/// code is not validated; the compiler does that.
///
/// # Errors
/// The first reason to refuse it.
pub fn check_component(component: &[u8], requested: &[Capability]) -> Result<(), ComponentError> {
    let interface = Interface::read(component)?;
    for import in interface.imports {
        if let Some(capability) = capability_of(import.clone())?
            && !requested.contains(&capability)
        {
            return Err(ComponentError::NotRequested { import, capability });
        }
    }
    let is_handler = |export: &String| {
        export == TYPED_HANDLER || split_version(export).is_some_and(|(name, _)| name == INCOMING_HANDLER)
    };
    if interface.exported_instances.iter().any(is_handler) { Ok(()) } else { Err(ComponentError::NoHandler) }
}

/// Checks that everything a package requests is granted. What is granted beyond that stays unused.
///
/// # Errors
/// The first capability that is requested and not granted.
pub fn check_grants(
    package: &PackageName,
    requested: &[Capability],
    granted: &[Capability],
) -> Result<(), GrantError> {
    match requested.iter().find(|capability| !granted.contains(capability)) {
        Some(capability) => Err(GrantError { package: package.clone(), capability: *capability }),
        None => Ok(()),
    }
}

/// The capability that an import needs, `None` for plain WASI.
fn capability_of(import: String) -> Result<Option<Capability>, ComponentError> {
    if CAPABILITY_INTERFACES.contains(&import.as_str()) {
        return Ok(Capability::of_import(&import));
    }
    match split_version(&import) {
        Some((OUTGOING_HANDLER, _)) => Ok(Some(Capability::OutgoingHttp)),
        Some((name, _)) if is_plain_wasi(name) => Ok(None),
        _ => Err(ComponentError::UnknownImport { import }),
    }
}

/// Splits `name@0.2.x`; `None` for every other version. Any patch release is taken, because a host links by
/// the compatible version and refuses only functions that it lacks.
fn split_version(interface: &str) -> Option<(&str, u64)> {
    let (name, version) = interface.split_once('@')?;
    let patch = version.strip_prefix("0.2.")?;
    patch.parse().ok().map(|patch| (name, patch))
}

fn is_plain_wasi(name: &str) -> bool {
    let Some((package, interface)) = name.split_once('/') else { return false };
    WASI.iter().any(|(name, interfaces)| *name == package && interfaces.contains(&interface))
}

/// A component's outside.
struct Interface {
    imports: Vec<String>,
    exported_instances: Vec<String>,
}

impl Interface {
    fn read(component: &[u8]) -> Result<Self, ComponentError> {
        // The parser prints bytes one below the other.
        let damaged = |error: wasmparser::BinaryReaderError| {
            let words: Vec<&str> = error.message().split_whitespace().collect();
            ComponentError::Damaged { reason: format!("{} (at byte {})", words.join(" "), error.offset()) }
        };
        let mut interface = Self { imports: Vec::new(), exported_instances: Vec::new() };
        // How many modules and components around the payload; the component itself is the first.
        let mut level = 0_usize;
        for payload in Parser::new(0).parse_all(component) {
            match payload.map_err(damaged)? {
                Payload::Version { encoding, .. } => {
                    if level == 0 && encoding == Encoding::Module {
                        return Err(ComponentError::CoreModule);
                    }
                    level += 1;
                }
                Payload::End(_) => level = level.saturating_sub(1),
                Payload::ComponentImportSection(section) if level == 1 => {
                    for import in section {
                        let import = import.map_err(damaged)?;
                        // An alias of a type that another import defines; nothing has to be provided.
                        if !matches!(import.ty, ComponentTypeRef::Type(TypeBounds::Eq(_))) {
                            interface.imports.push(import.name.name.to_owned());
                        }
                    }
                }
                Payload::ComponentExportSection(section) if level == 1 => {
                    for export in section {
                        let export = export.map_err(damaged)?;
                        if export.kind == ComponentExternalKind::Instance {
                            interface.exported_instances.push(export.name.name.to_owned());
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(interface)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn component(imports: &[&str]) -> Vec<u8> {
        let imports: String = imports.iter().map(|i| format!("(import \"{i}\" (instance))\n")).collect();
        let text = format!(
            "(component {imports} (instance $handler) (export \"wasi:http/incoming-handler@0.2.3\" (instance $handler)))"
        );
        wat::parse_str(text).expect("a component in text form")
    }

    #[test]
    fn plain_wasi_needs_no_capability_in_any_patch_version() {
        let imports = ["wasi:cli/stdout@0.2.0", "wasi:sockets/tcp@0.2.12", "wasi:http/types@0.2.99"];
        assert_eq!(check_component(&component(&imports), &[]), Ok(()));
        assert_eq!(imports_of(&component(&imports)), Ok(imports.map(str::to_owned).to_vec()));
    }

    #[test]
    fn a_component_handles_requests_or_typed_calls_or_both() {
        let exporting = |exports: &[&str]| {
            let exports: String =
                exports.iter().map(|e| format!("(export \"{e}\" (instance $handler))\n")).collect();
            let text =
                format!("(component (import \"wasi:cli/stdout@0.2.0\" (instance $handler)) {exports})");
            check_component(&wat::parse_str(text).expect("a component in text form"), &[])
        };
        let (http, typed) = ("wasi:http/incoming-handler@0.2.0", "hvm:app/handler@0.1.0");
        for good in [&[http][..], &[typed], &[http, typed]] {
            assert_eq!(exporting(good), Ok(()), "{good:?}");
        }
        for bad in [&[][..], &["hvm:app/handler@0.2.0"], &["hvm:app/handler"]] {
            assert_eq!(exporting(bad), Err(ComponentError::NoHandler), "{bad:?}");
        }
    }

    #[test]
    fn an_import_beyond_wasi_is_refused_by_name_until_it_is_requested() {
        for (import, capability) in [
            ("wasi:keyvalue/store@0.2.0-draft", Capability::Keyvalue),
            ("wasi:keyvalue/atomics@0.2.0-draft", Capability::Keyvalue),
            ("wasi:config/store@0.2.0-rc.1", Capability::Config),
            ("wasi:logging/logging@0.1.0-draft", Capability::Logging),
            ("wasi:http/outgoing-handler@0.2.6", Capability::OutgoingHttp),
        ] {
            let component = component(&["wasi:io/poll@0.2.6", import]);
            let others: Vec<_> = Capability::ALL.into_iter().filter(|c| *c != capability).collect();
            let error = check_component(&component, &others).expect_err("it is not requested");
            assert_eq!(error, ComponentError::NotRequested { import: import.to_owned(), capability });
            assert_eq!(check_component(&component, &[capability]), Ok(()));
            assert_eq!(required_capabilities(&component), Ok(BTreeSet::from([capability])));
        }
    }

    #[test]
    fn an_import_that_nobody_offers_is_refused_by_name_whatever_is_requested() {
        for import in [
            "example:unknown/thing",
            "wasi:keyvalue/store@0.1.0",
            "wasi:keyvalue/watcher@0.2.0-draft",
            "wasi:http/types@0.3.0",
            "wasi:http/types@0.2.0-rc-2023-11-10",
            "wasi:http/incoming-handler@0.2.0",
            "wasi:cli/run@0.2.0",
            "wasi:io/poll",
        ] {
            let error = check_component(&component(&[import]), &Capability::ALL);
            assert_eq!(error, Err(ComponentError::UnknownImport { import: import.to_owned() }));
        }
    }

    #[test]
    fn imports_of_what_is_nested_are_not_the_components_own() {
        let text = "(component
            (core module (import \"env\" \"f\" (func)))
            (component (import \"inner:thing/x\" (instance)))
            (import \"wasi:io/poll@0.2.0\" (instance)))";
        let bytes = wat::parse_str(text).expect("a component in text form");
        assert_eq!(imports_of(&bytes), Ok(vec!["wasi:io/poll@0.2.0".to_owned()]));
    }

    #[test]
    fn what_is_no_component_is_refused_for_what_it_is() {
        let module = wat::parse_str("(module)").expect("a module in text form");
        assert_eq!(check_component(&module, &[]), Err(ComponentError::CoreModule));
        let empty = wat::parse_str("(component)").expect("a component in text form");
        assert_eq!(check_component(&empty, &[]), Err(ComponentError::NoHandler));
        for bytes in [&b""[..], b"hello, this is text", &component(&["wasi:io/poll@0.2.0"])[..40]] {
            let error = check_component(bytes, &[]).expect_err("it is damaged");
            assert!(matches!(error, ComponentError::Damaged { .. }), "{error}");
            assert_eq!(error.to_string().lines().count(), 1, "{error}");
        }
    }

    #[test]
    fn a_request_beyond_the_grants_is_refused_by_name() {
        let package: PackageName = "web".parse().expect("a name");
        let requested = [Capability::Keyvalue, Capability::Config];
        assert_eq!(check_grants(&package, &requested, &Capability::ALL), Ok(()));
        let error =
            check_grants(&package, &requested, &[Capability::Keyvalue]).expect_err("config is not granted");
        assert_eq!(error.capability, Capability::Config);
        assert!(error.to_string().contains("package web requests the capability config"), "{error}");
    }
}
