//! The list of all checks. A name is that of the target in `fuzz/fuzz_targets`, of its corpus and of its
//! dictionary.

use crate::{
    component, deployment_file, image_documents, image_tar, interruptible, manifest, routing, signature,
    state, state_file,
};

/// Panics where a property does not hold of these bytes.
pub type Check = fn(&[u8]);

/// Every check by its name.
pub const CHECKS: [(&str, Check); 11] = [
    ("component", component::check),
    ("deployment_file", deployment_file::check),
    ("image_documents", image_documents::check),
    ("image_tar", image_tar::check),
    ("interruptible", interruptible::check),
    ("manifest", manifest::check),
    ("routing", routing::check),
    ("signature", signature::check),
    ("state_file", state_file::check),
    ("state_journal", state::check_journal),
    ("state_records", state::check_records),
];

/// The check of this name.
///
/// # Panics
/// Where there is none.
#[must_use]
pub fn check_named(name: &str) -> Check {
    let found = CHECKS.iter().find(|(other, _)| *other == name);
    found.map_or_else(|| panic!("there is no check `{name}`"), |(_, check)| *check)
}
