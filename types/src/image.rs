//! What an AppImage says of itself: the JSON config blob of its OCI manifest, and how a deployment names
//! an image.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{AppName, Capability, Digest, PackageName, StateSchema};

/// The config blob of an AppImage. Unknown fields are refused: a newer image may ask for something that an
/// older host would silently not enforce.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageConfig {
    /// The app.
    pub app: AppName,
    /// Its version.
    pub version: semver::Version,
    /// Version of the layout of the durable state that the app writes, from 1.
    pub state_schema: u32,
    /// The oldest such version whose state this one migrates; none where it has no migration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migrates_from: Option<u32>,
    /// Its packages by name.
    pub packages: BTreeMap<PackageName, PackageConfig>,
}

impl ImageConfig {
    /// The layouts of state that it knows.
    #[must_use]
    pub const fn schema(&self) -> StateSchema {
        StateSchema { version: self.state_schema, migrates_from: self.migrates_from }
    }
}

/// One package of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackageConfig {
    /// The component's blob (`application/wasm`).
    pub component: Digest,
    /// The capabilities it asks for. Sorted, each once.
    #[serde(default)]
    pub capabilities: Vec<Capability>,
    /// Static files, by the path at which the guest sees them, sorted by path.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<String, StaticFile>,
}

/// A static file of a package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StaticFile {
    /// The blob that holds it.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
}

/// A blob by its content: what is fetched, and how long it must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlobRef {
    /// SHA-256 of its bytes.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
}

/// An image as the scheduler's store lists it: everything that must be fetched to have it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageDocument {
    /// The OCI manifest: the image's name for deployments and signatures.
    pub manifest: Digest,
    /// The config blob.
    pub config: Digest,
    /// `index.json` of the layout, byte for byte.
    pub index: String,
    /// All blobs of the layout, manifests and signatures among them, sorted by digest.
    pub blobs: Vec<BlobRef>,
    /// The app, read from the config.
    pub app: AppName,
    /// Its version, read from the config.
    pub version: semver::Version,
}

/// How a deployment names its image: a file beside it, or an image the scheduler has.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub enum ImageRef {
    /// A path ending in `.aimg`, relative to the deployment file.
    File(String),
    /// `name@sha256:…`: an image by the digest of its manifest.
    Digest(AppName, Digest),
}

/// A text that names no image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` names no image: write a file ending in `.aimg`, or name@sha256:…")]
pub struct ParseImageRefError {
    /// What was given.
    pub text: String,
}

impl FromStr for ImageRef {
    type Err = ParseImageRefError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > ".aimg".len() && text.ends_with(".aimg") {
            return Ok(Self::File(text.to_owned()));
        }
        let parse = || {
            let (name, digest) = text.split_once('@')?;
            Some(Self::Digest(name.parse().ok()?, digest.parse().ok()?))
        };
        parse().ok_or_else(|| ParseImageRefError { text: text.to_owned() })
    }
}

impl TryFrom<String> for ImageRef {
    type Error = ParseImageRefError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<ImageRef> for String {
    fn from(image: ImageRef) -> Self {
        image.to_string()
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => f.write_str(path),
            Self::Digest(name, digest) => write!(f, "{name}@{digest}"),
        }
    }
}
