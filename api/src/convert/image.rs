//! Blobs and images.

use hvm_types::{BlobRef, ImageDocument};

use super::text::{each, parse};
use crate::{InvalidField, v1};

impl From<BlobRef> for v1::Blob {
    fn from(blob: BlobRef) -> Self {
        Self { digest: blob.digest.to_string(), size: blob.size }
    }
}

impl TryFrom<v1::Blob> for BlobRef {
    type Error = InvalidField;

    fn try_from(blob: v1::Blob) -> Result<Self, InvalidField> {
        Ok(Self { digest: parse("digest", &blob.digest)?, size: blob.size })
    }
}

impl From<ImageDocument> for v1::Image {
    fn from(image: ImageDocument) -> Self {
        Self {
            manifest: image.manifest.to_string(),
            index: image.index.into_bytes(),
            blobs: image.blobs.into_iter().map(Into::into).collect(),
            config: image.config.to_string(),
            app: image.app.to_string(),
            version: image.version.to_string(),
        }
    }
}

/// Reads an answer: `app` and `version` are filled.
impl TryFrom<v1::Image> for ImageDocument {
    type Error = InvalidField;

    fn try_from(image: v1::Image) -> Result<Self, InvalidField> {
        let index = String::from_utf8(image.index)
            .map_err(|_| InvalidField::new("index", "it is not UTF-8, which JSON must be"))?;
        Ok(Self {
            manifest: parse("manifest", &image.manifest)?,
            config: parse("config", &image.config)?,
            index,
            blobs: each("blobs", image.blobs)?,
            app: parse("app", &image.app)?,
            version: parse("version", &image.version)?,
        })
    }
}
