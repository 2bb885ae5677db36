//! The OCI documents of an AppImage (image-spec 1.1): `oci-layout`, `index.json` and manifests. They are read
//! into, and written from, [`BlobDescriptor`]s; nothing else in this crate sees OCI's own types.

use hvm_types::Digest;
use oci_spec::image::{
    Descriptor, ImageIndex, ImageIndexBuilder, ImageManifest, ImageManifestBuilder, MediaType, OciLayout,
    OciLayoutBuilder, Sha256Digest,
};

use crate::blob::BlobDescriptor;
use crate::json;
use crate::media_type::MANIFEST_TYPE;
use crate::read_error::ReadError;

/// The version of the layout format (image-spec 1.1, "Image Layout Specification").
const LAYOUT_VERSION: &str = "1.0.0";
/// `schemaVersion` of index and manifests; it never changes (image-spec 1.1).
const SCHEMA_VERSION: u32 = 2;
/// The content of OCI's empty config.
pub(crate) const EMPTY_CONFIG: &[u8] = b"{}";
/// Why building a document can't fail.
const COMPLETE: &str = "every required field was set";

/// The bytes of `oci-layout`.
pub(crate) fn encode_oci_layout() -> Vec<u8> {
    json::encode(&OciLayoutBuilder::default().image_layout_version(LAYOUT_VERSION).build().expect(COMPLETE))
}

/// Refuses a layout of another version.
pub(crate) fn check_oci_layout(bytes: &[u8]) -> Result<(), ReadError> {
    let layout: OciLayout = json::parse("oci-layout", bytes)?;
    let version = layout.image_layout_version();
    if version != LAYOUT_VERSION {
        let reason = format!("its version is `{version}`, and {LAYOUT_VERSION} is the one there is");
        return Err(ReadError::Document { what: "oci-layout".to_owned(), reason });
    }
    Ok(())
}

/// `index.json`: manifests, each with its artifact type.
#[derive(Debug)]
pub(crate) struct IndexDocument {
    pub(crate) manifests: Vec<(BlobDescriptor, String)>,
}

impl IndexDocument {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, ReadError> {
        let what = "index.json";
        let index: ImageIndex = json::parse(what, bytes)?;
        check_kind(what, index.schema_version(), index.media_type().as_ref(), &MediaType::ImageIndex)?;
        let manifests = index.manifests().iter().map(|descriptor| {
            let artifact_type = descriptor.artifact_type().as_ref().map_or("", |kind| kind.as_ref());
            let manifest = from_oci(what, descriptor)?;
            if manifest.media_type != MANIFEST_TYPE {
                let reason = format!("it names a `{}`", manifest.media_type);
                return Err(ReadError::Document { what: what.to_owned(), reason });
            }
            Ok((manifest, artifact_type.to_owned()))
        });
        Ok(Self { manifests: manifests.collect::<Result<_, _>>()? })
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let manifests = self.manifests.iter().map(|(manifest, artifact_type)| {
            let mut descriptor = to_oci(manifest);
            descriptor.set_artifact_type(Some(MediaType::from(artifact_type.as_str())));
            descriptor
        });
        let index = ImageIndexBuilder::default()
            .schema_version(SCHEMA_VERSION)
            .media_type(MediaType::ImageIndex)
            .manifests(manifests.collect::<Vec<_>>())
            .build();
        json::encode(&index.expect(COMPLETE))
    }
}

/// A manifest: of the image, or of one of its signatures.
#[derive(Debug)]
pub(crate) struct ManifestDocument {
    pub(crate) artifact_type: String,
    pub(crate) config: BlobDescriptor,
    pub(crate) layers: Vec<BlobDescriptor>,
    pub(crate) subject: Option<BlobDescriptor>,
}

impl ManifestDocument {
    pub(crate) fn parse(what: &str, bytes: &[u8]) -> Result<Self, ReadError> {
        let manifest: ImageManifest = json::parse(what, bytes)?;
        check_kind(
            what,
            manifest.schema_version(),
            manifest.media_type().as_ref(),
            &MediaType::ImageManifest,
        )?;
        let subject = manifest.subject().as_ref().map(|subject| from_oci(what, subject));
        Ok(Self {
            artifact_type: manifest.artifact_type().as_ref().map(ToString::to_string).unwrap_or_default(),
            config: from_oci(what, manifest.config())?,
            layers: manifest.layers().iter().map(|layer| from_oci(what, layer)).collect::<Result<_, _>>()?,
            subject: subject.transpose()?,
        })
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut manifest = ImageManifestBuilder::default()
            .schema_version(SCHEMA_VERSION)
            .media_type(MediaType::ImageManifest)
            .artifact_type(self.artifact_type.as_str())
            .config(to_oci(&self.config))
            .layers(self.layers.iter().map(to_oci).collect::<Vec<_>>())
            .build()
            .expect(COMPLETE);
        manifest.set_subject(self.subject.as_ref().map(to_oci));
        json::encode(&manifest)
    }
}

fn check_kind(
    what: &str,
    schema_version: u32,
    media_type: Option<&MediaType>,
    expected: &MediaType,
) -> Result<(), ReadError> {
    let invalid = |reason| ReadError::Document { what: what.to_owned(), reason };
    if schema_version != SCHEMA_VERSION {
        return Err(invalid(format!("its schemaVersion is {schema_version} instead of {SCHEMA_VERSION}")));
    }
    if media_type != Some(expected) {
        return Err(invalid(format!("its mediaType is not {expected}")));
    }
    Ok(())
}

fn from_oci(what: &str, descriptor: &Descriptor) -> Result<BlobDescriptor, ReadError> {
    let digest = descriptor.digest().as_ref().parse().map_err(|error: hvm_types::ParseDigestError| {
        ReadError::Document { what: what.to_owned(), reason: error.to_string() }
    })?;
    Ok(BlobDescriptor { digest, size: descriptor.size(), media_type: descriptor.media_type().to_string() })
}

fn to_oci(blob: &BlobDescriptor) -> Descriptor {
    Descriptor::new(MediaType::from(blob.media_type.as_str()), blob.size, sha256(blob.digest))
}

fn sha256(digest: Digest) -> Sha256Digest {
    digest.to_hex().parse().expect("a digest has 64 lowercase hex digits")
}
