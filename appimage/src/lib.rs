//! The AppImage format: pack, read, sign and verify.
//!
//! An AppImage is an OCI image layout (image-spec 1.1) in one tar file, signed with Sigstore bundles that
//! stand in the same layout. The straight line through this crate:
//!
//! - an author's directory → [`AppManifest`] → [`ImageBuilder`] → an `.aimg` file → [`sign_file`];
//! - a [`BlobSource`] (an `.aimg` file, or a directory of blobs) → [`UnverifiedImage`], of which only the
//!   index and the manifests have been read → [`UnverifiedImage::verify`] with a [`TrustPolicy`] → [`Image`].
//!
//! Only an [`Image`] gives out content, and only content whose digest it has checked. Nothing is ever
//! extracted to a path: blobs are addressed by digest. This crate neither compiles nor runs components, and it
//! makes no network connections.

mod app_manifest;
mod blob;
mod builder;
mod bundle;
mod component;
mod dir_source;
mod image;
mod json;
mod key;
mod layout;
mod limit;
mod media_type;
mod oci;
mod pack;
mod read_error;
mod sign;
mod stale;
mod tar;
mod tar_source;
mod text_position;
mod trust;
mod verify;
mod write;

pub use app_manifest::{AppManifest, ComponentSource, ManifestError, PackageManifest};
pub use blob::{Blob, BlobDescriptor, BlobSource};
pub use builder::{BuildError, ImageBuilder, PackageContent};
pub use bundle::PREDICATE_TYPE;
pub use component::{
    ComponentError, GrantError, check_component, check_grants, imports_of, required_capabilities,
};
pub use dir_source::DirSource;
pub use image::{Image, ImageListing, UnverifiedImage};
pub use key::{KeyAlgorithm, KeyError, KeyId, PublicKey, SigningKey};
pub use limit::*;
pub use media_type::*;
pub use pack::{PackError, pack_directory};
pub use read_error::ReadError;
pub use sign::{SignError, SignOutcome, sign_file};
pub use tar_source::TarSource;
pub use trust::{PolicyError, TrustPolicy};
pub use verify::VerifyError;
pub use write::WriteError;
