//! Adds a signature to an `.aimg` file.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use hvm_types::Digest;

use crate::blob::{BlobDescriptor, BlobSource};
use crate::bundle::create_bundle;
use crate::image::UnverifiedImage;
use crate::key::{KeyId, SigningKey};
use crate::layout::SignatureLayout;
use crate::limit::MAX_SIGNATURES;
use crate::media_type::{BUNDLE_TYPE, EMPTY_TYPE, MANIFEST_TYPE};
use crate::oci::{EMPTY_CONFIG, ManifestDocument};
use crate::read_error::ReadError;
use crate::tar_source::TarSource;
use crate::write::{Content, ContentBytes, WriteError, write_file};

/// What signing did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignOutcome {
    /// The image.
    pub manifest: Digest,
    /// The key.
    pub key: KeyId,
    /// Whether the same key's signature was there before, so that the file was left as it was.
    pub already_signed: bool,
    /// Signatures on the image now.
    pub signatures: usize,
}

/// Why an image can't be signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// It is no whole image.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It has as many signatures as an image may have.
    #[error("the image already has {MAX_SIGNATURES} signatures, and that is the most")]
    Full,
    /// The file can't be replaced.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Signs the image in a file. The other signatures stay; the image's digest does not change.
///
/// # Errors
/// Where the image is damaged (what is signed is what was checked), full of signatures, or can't be written.
pub fn sign_file(path: &Path, key: &SigningKey) -> Result<SignOutcome, SignError> {
    let source: Arc<dyn BlobSource> = Arc::new(TarSource::open(path)?);
    let unverified = UnverifiedImage::open_shared(Arc::clone(&source))?;
    let mut layout = unverified.layout().clone();
    let image = unverified.without_signature()?;

    let manifest = layout.manifest.digest;
    let name = format!("{}-{}", image.config().app, image.config().version);
    let bundle = create_bundle(key, manifest, &name);
    let (signature, new_blobs) = attach(&layout.manifest, bundle);
    let already_signed = layout.signatures.iter().any(|s| s.manifest.digest == signature.manifest.digest);
    if !already_signed {
        if layout.signatures.len() >= MAX_SIGNATURES {
            return Err(SignError::Full);
        }
        layout.signatures.push(signature);
        // So that the file does not depend on the order in which it was signed.
        layout.signatures.sort_by_key(|signature| signature.manifest.digest);
        let mut blobs = BTreeMap::new();
        for blob in image.blobs() {
            let bytes = ContentBytes::Source(Arc::clone(&source));
            blobs.insert(blob.digest, Content { size: blob.size, bytes });
        }
        blobs.extend(new_blobs);
        write_file(path, &layout.encode_index(), &blobs)?;
    }
    let signatures = layout.signatures.len();
    Ok(SignOutcome { manifest, key: key.public().id(), already_signed, signatures })
}

/// The manifest that attaches a bundle to the image, and the blobs that come with it.
fn attach(image: &BlobDescriptor, bundle: Vec<u8>) -> (SignatureLayout, BTreeMap<Digest, Content>) {
    let document = ManifestDocument {
        artifact_type: BUNDLE_TYPE.to_owned(),
        config: BlobDescriptor::of(EMPTY_TYPE, EMPTY_CONFIG),
        layers: vec![BlobDescriptor::of(BUNDLE_TYPE, &bundle)],
        subject: Some(image.clone()),
    };
    let manifest_bytes = document.encode();
    let signature = SignatureLayout {
        manifest: BlobDescriptor::of(MANIFEST_TYPE, &manifest_bytes),
        bundle: document.layers[0].clone(),
        empty_config: document.config,
    };
    let blobs = BTreeMap::from([
        (signature.manifest.digest, Content::of(manifest_bytes)),
        (signature.empty_config.digest, Content::of(EMPTY_CONFIG)),
        (signature.bundle.digest, Content::of(bundle)),
    ]);
    (signature, blobs)
}
