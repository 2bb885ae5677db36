//! What may be deployed: a deployment file and an image, to the document that Deploy writes, or to every
//! reason why not, each pointing at its line.
//!
//! The file's own rules are those of `hvm_types::deployment_file`; here stand the ones that need the image,
//! the deployment as it is, and its neighbours.

mod admit;
mod capability;
mod checks;
mod layouts;

pub(crate) use admit::{Admitted, admit, stored_image};
pub(crate) use capability::capability_lines;
