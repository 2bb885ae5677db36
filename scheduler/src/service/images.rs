//! Taking and giving images.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use hvm_api::limit::CHUNK_MAX_BYTES;
use hvm_api::v1::put_blob_request::Part;
use hvm_api::{ErrorKind, Failure, InvalidField, v1};
use hvm_types::{BlobRef, Digest};
use tokio::io::AsyncReadExt as _;
use tonic::{Status, Streaming};

use super::image_manifest;
use crate::admission::stored_image;
use crate::blobs::Receiving;
use crate::core::Core;
use crate::documents::{StoredImage, decode, encode, key};
use crate::failure::IntoFailure as _;
use crate::store::{Transaction, Write};

/// Most blobs that one image may have, and one request may name.
pub(super) const MAX_BLOBS: usize = 8_192;

fn invalid(error: InvalidField) -> Failure {
    Failure::new(ErrorKind::Invalid, error)
}

fn blob_ref(blob: v1::Blob) -> Result<BlobRef, Failure> {
    BlobRef::try_from(blob).map_err(|error| invalid(error.within("blob")))
}

fn digest(field: &str, text: &str) -> Result<Digest, Failure> {
    text.parse().map_err(|reason| invalid(InvalidField::new(field, reason)))
}

pub(super) async fn find_missing(
    core: &Core,
    request: v1::FindMissingBlobsRequest,
) -> Result<v1::FindMissingBlobsResponse, Failure> {
    check_count(request.blobs.len())?;
    let mut response = v1::FindMissingBlobsResponse::default();
    for blob in request.blobs {
        let wanted = blob_ref(blob)?;
        if core.blobs.has(wanted).await.map_err(|error| error.into_failure())? {
            continue;
        }
        let received = core.blobs.received(wanted.digest).await.map_err(|error| error.into_failure())?;
        if received > 0 {
            response.partial.push(v1::PartialBlob { digest: wanted.digest.to_string(), received });
        }
        response.missing.push(wanted.into());
    }
    Ok(response)
}

pub(super) fn check_count(blobs: usize) -> Result<(), Failure> {
    if blobs <= MAX_BLOBS {
        return Ok(());
    }
    let reason = format!("{blobs} are more than {MAX_BLOBS}");
    Err(invalid(InvalidField::new("blobs", reason)))
}

pub(super) async fn put_blob(core: &Core, mut parts: Streaming<v1::PutBlobRequest>) -> Result<(), Status> {
    let mut receiving: Option<Receiving> = None;
    while let Some(message) = parts.message().await? {
        receiving = Some(match (message.part, receiving) {
            (Some(Part::Blob(blob)), None) => begin(core, Some(blob), 0).await?,
            (Some(Part::Resume(resume)), None) => begin(core, resume.blob, resume.offset).await?,
            (Some(Part::Data(data)), Some(mut receiving)) if data.len() <= CHUNK_MAX_BYTES => {
                receiving.write(&data).await.map_err(|error| error.into_failure())?;
                receiving
            }
            (Some(Part::Data(data)), Some(_)) => {
                let reason = format!("{} bytes are more than {CHUNK_MAX_BYTES}", data.len());
                return Err(invalid(InvalidField::new("data", reason)).into());
            }
            _ => {
                let reason = "the first message names a blob, and all others hold data";
                return Err(invalid(InvalidField::new("part", reason)).into());
            }
        });
    }
    match receiving {
        Some(receiving) => Ok(receiving.finish().await.map_err(|error| error.into_failure())?),
        None => Err(invalid(InvalidField::new("part", "no blob was named")).into()),
    }
}

async fn begin(core: &Core, blob: Option<v1::Blob>, offset: u64) -> Result<Receiving, Failure> {
    let blob = blob.ok_or_else(|| invalid(InvalidField::new("blob", "it is missing")))?;
    core.blobs.receive(blob_ref(blob)?, offset).await.map_err(|error| error.into_failure())
}

pub(super) async fn put_image(core: &Core, image: v1::Image) -> Result<(), Failure> {
    check_count(image.blobs.len())?;
    let stored = image_manifest::check(core, image).await?;
    if let Some(check) = &core.image_check {
        let check = Arc::clone(check);
        let root = core.blobs.root().to_owned();
        let listing = stored.listing.clone();
        let checked = tokio::task::spawn_blocking(move || check(&listing, &root)).await;
        checked
            .map_err(|error| Failure::new(ErrorKind::Internal, error))?
            .map_err(|reason| Failure::new(ErrorKind::Invalid, reason))?;
    }
    let key = key::image(stored.listing.manifest);
    let write = Write::Put { key, value: Bytes::from(encode(&stored)), lease: None };
    let transaction = Transaction { expects: Vec::new(), writes: vec![write] };
    core.store.transact(transaction).await.map_err(|error| error.into_failure())?;
    let listing = &stored.listing;
    tracing::info!(app = %listing.app, version = %listing.version, image = %listing.manifest, "image taken");
    Ok(())
}

pub(super) async fn get_image(core: &Core, request: &v1::GetImageRequest) -> Result<v1::Image, Failure> {
    let manifest = digest("manifest", &request.manifest)?;
    match stored_image(core, manifest).await? {
        Some(image) => Ok(image.listing.into()),
        None => {
            let line = format!("there is no image {manifest}; send it with `hvm image push FILE`");
            Err(Failure::new(ErrorKind::NotFound, line))
        }
    }
}

pub(super) async fn list_images(core: &Core) -> Result<v1::ListImagesResponse, Failure> {
    let listing = core.store.list(key::IMAGES).await.map_err(|error| error.into_failure())?;
    let mut images = Vec::new();
    for entry in listing.entries {
        let image: StoredImage = decode(&entry.key, &entry.value).map_err(|error| error.into_failure())?;
        images.push(image.listing.into());
    }
    Ok(v1::ListImagesResponse { images })
}

pub(super) async fn get_blob(
    core: &Core,
    request: &v1::GetBlobRequest,
) -> Result<BoxStream<'static, Result<v1::BlobChunk, Status>>, Failure> {
    let digest = digest("digest", &request.digest)?;
    let opened = core.blobs.open_at(digest, request.offset).await;
    let (file, _) = opened.map_err(|error| error.into_failure())?;
    let chunks = futures::stream::unfold(Some(file), |file| async {
        let mut file = file?;
        let mut data = Vec::with_capacity(CHUNK_MAX_BYTES);
        let wanted = CHUNK_MAX_BYTES as u64;
        match (&mut file).take(wanted).read_to_end(&mut data).await {
            Ok(0) => None,
            Ok(_) => Some((Ok(v1::BlobChunk { data }), Some(file))),
            Err(error) => Some((Err(Status::unavailable(format!("failed to read a blob: {error}"))), None)),
        }
    });
    Ok(chunks.boxed())
}
