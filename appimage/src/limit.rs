//! What an AppImage may hold at most. Each limit is checked before the bytes behind it are read.

/// Largest `index.json`, in bytes.
pub const MAX_INDEX_BYTES: u64 = 1 << 20;
/// Largest image manifest, in bytes: what registries take (OCI distribution-spec 1.1, "Pushing Manifests").
pub const MAX_MANIFEST_BYTES: u64 = 4 << 20;
/// Largest config, in bytes.
pub const MAX_CONFIG_BYTES: u64 = 1 << 20;
/// Largest manifest of a signature, in bytes.
pub const MAX_SIGNATURE_MANIFEST_BYTES: u64 = 64 << 10;
/// Largest signature bundle, in bytes.
pub const MAX_BUNDLE_BYTES: u64 = 256 << 10;
/// Largest component or static file, in bytes.
pub const MAX_CONTENT_BYTES: u64 = 256 << 20;
/// Largest image: all its blobs together, in bytes.
pub const MAX_IMAGE_BYTES: u64 = 4 << 30;
/// Most components and static files in one image.
pub const MAX_CONTENTS: usize = 4096;
/// Most signatures on one image.
pub const MAX_SIGNATURES: usize = 16;
/// Deepest nesting of any JSON document in an image.
pub const MAX_JSON_LEVELS: usize = 64;

/// Most entries in an `.aimg` file: contents, manifest and config, three blobs for each signature,
/// `oci-layout` and `index.json`.
pub(crate) const MAX_ENTRIES: usize = MAX_CONTENTS + 2 + 3 * MAX_SIGNATURES + 2;
