//! That the parts of a sent image fit together: every blob is here, the index lists the manifest, the
//! manifest names the config, the config names only blobs that are listed. Whose image it is, hosts check.

use std::collections::BTreeSet;

use hvm_api::{ErrorKind, Failure, InvalidField, v1};
use hvm_types::{BlobRef, Digest, ImageConfig, ImageDocument};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::core::Core;
use crate::documents::StoredImage;
use crate::failure::IntoFailure as _;

/// Longest index, manifest or config.
const MAX_JSON_BYTES: u64 = 1 << 20;
/// How many missing blobs a refusal lists.
const MAX_LISTED: usize = 5;

/// `index.json` (OCI image-spec 1.1, "image index"), as far as it is needed here.
#[derive(Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

/// An OCI manifest, as far as it is needed here.
#[derive(Deserialize)]
struct Manifest {
    config: Descriptor,
    #[serde(default)]
    layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Descriptor {
    digest: Digest,
}

fn refused(reason: impl std::fmt::Display) -> Failure {
    Failure::new(ErrorKind::Invalid, format!("the image is refused: {reason}; pack and send it again"))
}

fn parse<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(bytes)
        .map_err(|error| refused(format!("its {what} is not as it must be ({error})")))
}

async fn read(core: &Core, what: &str, blobs: &[BlobRef], digest: Digest) -> Result<Vec<u8>, Failure> {
    let listed = blobs.iter().find(|blob| blob.digest == digest);
    let blob = listed.ok_or_else(|| refused(format!("its {what} {digest} is not among its blobs")))?;
    core.blobs.read(*blob, MAX_JSON_BYTES).await.map_err(|error| error.into_failure())
}

/// The image as it is stored, or why it is not.
pub(super) async fn check(core: &Core, image: v1::Image) -> Result<StoredImage, Failure> {
    let invalid = |error: InvalidField| Failure::new(ErrorKind::Invalid, error);
    let digest = |field: &str, text: &str| {
        text.parse::<Digest>().map_err(|reason| invalid(InvalidField::new(field, reason)))
    };
    let manifest = digest("manifest", &image.manifest)?;
    let config = digest("config", &image.config)?;
    if image.index.len() as u64 > MAX_JSON_BYTES {
        return Err(refused(format!("its index has more than {MAX_JSON_BYTES} bytes")));
    }
    let index = String::from_utf8(image.index).map_err(|_| refused("its index is not UTF-8"))?;
    let blobs: Result<BTreeSet<BlobRef>, _> = image.blobs.into_iter().map(BlobRef::try_from).collect();
    let blobs: Vec<BlobRef> = blobs.map_err(|error| invalid(error.within("blobs")))?.into_iter().collect();
    ensure_all_here(core, &blobs).await?;

    let parsed: Index = parse("index", index.as_bytes())?;
    if !parsed.manifests.iter().any(|entry| entry.digest == manifest) {
        return Err(refused(format!("its index does not list the manifest {manifest}")));
    }
    let known: BTreeSet<Digest> = blobs.iter().map(|blob| blob.digest).collect();
    for entry in &parsed.manifests {
        ensure_listed("index", entry.digest, &known)?;
    }
    let oci: Manifest = parse("manifest", &read(core, "manifest", &blobs, manifest).await?)?;
    if oci.config.digest != config {
        return Err(refused(format!("its manifest names the config {}, not {config}", oci.config.digest)));
    }
    for layer in &oci.layers {
        ensure_listed("manifest", layer.digest, &known)?;
    }
    let parsed: ImageConfig = parse("config", &read(core, "config", &blobs, config).await?)?;
    let layers: BTreeSet<Digest> = oci.layers.iter().map(|layer| layer.digest).collect();
    for package in parsed.packages.values() {
        let files = package.files.values().map(|file| file.digest);
        for blob in files.chain([package.component]) {
            ensure_listed("config", blob, &layers)?;
        }
    }
    let (app, version) = (parsed.app.clone(), parsed.version.clone());
    let listing = ImageDocument { manifest, config, index, blobs, app, version };
    Ok(StoredImage { listing, config: parsed })
}

fn ensure_listed(by: &str, digest: Digest, known: &BTreeSet<Digest>) -> Result<(), Failure> {
    if known.contains(&digest) {
        return Ok(());
    }
    Err(refused(format!("its {by} names {digest}, which does not belong to it")))
}

async fn ensure_all_here(core: &Core, blobs: &[BlobRef]) -> Result<(), Failure> {
    let mut missing = Vec::new();
    for blob in blobs {
        if !core.blobs.has(*blob).await.map_err(|error| error.into_failure())? {
            missing.push(format!("blob {} of {} bytes is not here; send it first", blob.digest, blob.size));
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let count = missing.len();
    missing.truncate(MAX_LISTED);
    if count > MAX_LISTED {
        missing.push(format!("{} more blobs are missing", count - MAX_LISTED));
    }
    Err(Failure { kind: ErrorKind::Invalid, lines: missing })
}
