//! What the index and the manifests of an image say, checked against the limits. The OCI documents themselves
//! are [`crate::oci`]'s.

use std::collections::BTreeSet;

use hvm_types::Digest;

use crate::blob::{BlobDescriptor, BlobSource};
use crate::limit::{
    MAX_BUNDLE_BYTES, MAX_CONFIG_BYTES, MAX_CONTENT_BYTES, MAX_CONTENTS, MAX_IMAGE_BYTES, MAX_MANIFEST_BYTES,
    MAX_SIGNATURE_MANIFEST_BYTES, MAX_SIGNATURES,
};
use crate::media_type::{ARTIFACT_TYPE, BUNDLE_TYPE, COMPONENT_TYPE, CONFIG_TYPE, EMPTY_TYPE, FILE_TYPE};
use crate::oci::{EMPTY_CONFIG, IndexDocument, ManifestDocument};
use crate::read_error::ReadError;

/// What index and manifests say. Nothing behind the manifests has been read.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    /// The image manifest, whose digest is the image's.
    pub(crate) manifest: BlobDescriptor,
    /// The config.
    pub(crate) config: BlobDescriptor,
    /// Components and static files.
    pub(crate) contents: Vec<BlobDescriptor>,
    /// The signatures, not verified.
    pub(crate) signatures: Vec<SignatureLayout>,
}

/// A signature: a manifest that attaches a bundle to the image.
#[derive(Debug, Clone)]
pub(crate) struct SignatureLayout {
    pub(crate) manifest: BlobDescriptor,
    pub(crate) empty_config: BlobDescriptor,
    pub(crate) bundle: BlobDescriptor,
}

impl Layout {
    /// Parses the index and reads the manifests that it names.
    pub(crate) fn read(source: &dyn BlobSource, index: &[u8]) -> Result<Self, ReadError> {
        let index = IndexDocument::parse(index)?;
        let (manifest, signatures) = split_index(index)?;
        let mut layout = read_image_manifest(source, manifest)?;
        for signature in signatures {
            let signature = read_signature_manifest(source, signature, &layout.manifest)?;
            layout.signatures.push(signature);
        }
        Ok(layout)
    }

    /// Every blob of the image, each once, sorted by digest.
    pub(crate) fn blobs(&self) -> Vec<BlobDescriptor> {
        let signatures = self.signatures.iter().flat_map(|s| [&s.manifest, &s.empty_config, &s.bundle]);
        let all = [&self.manifest, &self.config].into_iter().chain(&self.contents).chain(signatures);
        let mut blobs: Vec<_> = all.cloned().collect();
        blobs.sort_by_key(|blob| blob.digest);
        blobs.dedup_by_key(|blob| blob.digest);
        blobs
    }

    /// The bytes of `index.json`.
    pub(crate) fn encode_index(&self) -> Vec<u8> {
        let image = (self.manifest.clone(), ARTIFACT_TYPE.to_owned());
        let signatures = self.signatures.iter().map(|s| (s.manifest.clone(), BUNDLE_TYPE.to_owned()));
        IndexDocument { manifests: std::iter::once(image).chain(signatures).collect() }.encode()
    }
}

fn too_many(what: &str, found: usize, limit: usize) -> ReadError {
    ReadError::TooLarge { what: what.to_owned(), found: found as u64, limit: limit as u64 }
}

/// The one image that an index names, and its signatures.
fn split_index(index: IndexDocument) -> Result<(BlobDescriptor, Vec<BlobDescriptor>), ReadError> {
    let invalid = |reason: String| ReadError::Document { what: "index.json".to_owned(), reason };
    let (mut images, mut signatures) = (Vec::new(), Vec::new());
    for (manifest, artifact_type) in index.manifests {
        match artifact_type.as_str() {
            ARTIFACT_TYPE => images.push(manifest),
            BUNDLE_TYPE => signatures.push(manifest),
            other => return Err(invalid(format!("it names a manifest of type `{other}`"))),
        }
    }
    if signatures.len() > MAX_SIGNATURES {
        return Err(too_many("the number of signatures", signatures.len(), MAX_SIGNATURES));
    }
    let distinct: BTreeSet<Digest> = signatures.iter().map(|manifest| manifest.digest).collect();
    if distinct.len() != signatures.len() {
        return Err(invalid("it names a signature twice".to_owned()));
    }
    match <[BlobDescriptor; 1]>::try_from(images) {
        Ok([image]) => Ok((image, signatures)),
        Err(images) => {
            Err(invalid(format!("it names {} images of type {ARTIFACT_TYPE} instead of one", images.len())))
        }
    }
}

fn read_image_manifest(source: &dyn BlobSource, manifest: BlobDescriptor) -> Result<Layout, ReadError> {
    let what = "the image manifest";
    let invalid = |reason: String| ReadError::Document { what: what.to_owned(), reason };
    let document = ManifestDocument::parse(what, &manifest.read(source, what, MAX_MANIFEST_BYTES)?)?;
    if document.artifact_type != ARTIFACT_TYPE {
        return Err(invalid(format!("its artifactType is `{}`", document.artifact_type)));
    }
    if document.config.media_type != CONFIG_TYPE {
        return Err(invalid(format!("its config has the type `{}`", document.config.media_type)));
    }
    if document.subject.is_some() {
        return Err(invalid("it has a subject".to_owned()));
    }
    document.config.check_limit("the config", MAX_CONFIG_BYTES)?;
    if document.layers.len() > MAX_CONTENTS {
        return Err(too_many("the number of components and files", document.layers.len(), MAX_CONTENTS));
    }
    let mut digests = BTreeSet::from([document.config.digest]);
    let mut total = 0_u64;
    for content in &document.layers {
        if content.media_type != COMPONENT_TYPE && content.media_type != FILE_TYPE {
            return Err(invalid(format!("it holds a layer of type `{}`", content.media_type)));
        }
        if !digests.insert(content.digest) {
            return Err(invalid(format!("it names blob {} twice", content.digest)));
        }
        content.check_limit(&format!("blob {}", content.digest), MAX_CONTENT_BYTES)?;
        total += content.size;
    }
    if total > MAX_IMAGE_BYTES {
        let what = "the image".to_owned();
        return Err(ReadError::TooLarge { what, found: total, limit: MAX_IMAGE_BYTES });
    }
    Ok(Layout { manifest, config: document.config, contents: document.layers, signatures: Vec::new() })
}

fn read_signature_manifest(
    source: &dyn BlobSource,
    manifest: BlobDescriptor,
    image: &BlobDescriptor,
) -> Result<SignatureLayout, ReadError> {
    let what = "the manifest of a signature";
    let invalid = |reason: String| ReadError::Document { what: what.to_owned(), reason };
    let bytes = manifest.read(source, what, MAX_SIGNATURE_MANIFEST_BYTES)?;
    let document = ManifestDocument::parse(what, &bytes)?;
    if document.artifact_type != BUNDLE_TYPE {
        return Err(invalid(format!("its artifactType is `{}`", document.artifact_type)));
    }
    if document.subject.as_ref() != Some(image) {
        return Err(invalid(format!("its subject is not this image, {}", image.digest)));
    }
    if document.config != BlobDescriptor::of(EMPTY_TYPE, EMPTY_CONFIG) {
        return Err(invalid("its config is not OCI's empty one".to_owned()));
    }
    match <[BlobDescriptor; 1]>::try_from(document.layers) {
        Ok([bundle]) if bundle.media_type == BUNDLE_TYPE => {
            bundle.check_limit("a signature", MAX_BUNDLE_BYTES)?;
            Ok(SignatureLayout { manifest, empty_config: document.config, bundle })
        }
        _ => Err(invalid("it does not hold exactly one Sigstore bundle".to_owned())),
    }
}
