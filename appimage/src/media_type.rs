//! The media types that stand in an AppImage.

/// `artifactType` of an AppImage's manifest.
pub const ARTIFACT_TYPE: &str = "application/vnd.hvm.appimage.v1";
/// The config blob: [`hvm_types::ImageConfig`] as JSON.
pub const CONFIG_TYPE: &str = "application/vnd.hvm.appimage.config.v1+json";
/// A component.
pub const COMPONENT_TYPE: &str = "application/wasm";
/// A static file.
pub const FILE_TYPE: &str = "application/octet-stream";
/// A signature: a Sigstore bundle. Also the `artifactType` of the manifest that attaches it.
pub const BUNDLE_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
/// An OCI image manifest.
pub const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
/// OCI's empty config, of which the content is `{}`.
pub const EMPTY_TYPE: &str = "application/vnd.oci.empty.v1+json";
