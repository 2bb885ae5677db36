//! Images whose blobs the scheduler has.

use hvm_types::{ImageConfig, ImageDocument};
use serde::{Deserialize, Serialize};

/// An image: what a host must fetch, and what the image says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredImage {
    /// Its index and blobs.
    pub listing: ImageDocument,
    /// Its config blob, read.
    pub config: ImageConfig,
}
