//! The deployment file: YAML or JSON text to a checked [`DeploymentSpec`], with errors that point at file,
//! line and field.
//!
//! Three steps: text to a tree that knows its lines (`node`), the tree to a spec (`structure`), the spec
//! against the rules (`rules` for one field, `relations` for several). The rules need no text, so whoever
//! is handed a spec by another process checks it with [`validate`].
//!
//! Nothing here reads files or knows their names: the caller does, up to [`MAX_FILE_BYTES`].

mod change;
mod error;
mod fields;
mod node;
mod parse;
mod relations;
mod rules;
mod schema;
mod structure;
mod suggest;
#[cfg(test)]
mod tests;

pub use change::change_allowed;
pub use error::{Place, SpecError};
pub use node::Format;
pub use parse::{MAX_ERRORS, MAX_FILE_BYTES, locate, parse, validate};
pub use schema::json_schema;

#[cfg(doc)]
use crate::DeploymentSpec;
