//! Fetching an image from the scheduler: its index and those of its blobs that are not here yet. What arrives
//! is checked against its digest and otherwise not trusted.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use futures::StreamExt as _;
use hvm_api::limit::MESSAGE_MAX_BYTES;
use hvm_api::v1::control_client::ControlClient;
use hvm_api::{Failure, InvalidField, v1};
use hvm_appimage::{MAX_CONTENTS, MAX_IMAGE_BYTES, MAX_SIGNATURES};
use hvm_types::{BlobRef, Digest, ImageDocument};
use tonic::transport::Channel;

use super::store::{BlobError, ImageStore, Received};

/// Most blobs of an image: contents, manifest and config, and three for each signature.
const MAX_BLOBS: usize = MAX_CONTENTS + 2 + 3 * MAX_SIGNATURES;

/// How long the scheduler may take for the next part of an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// How long the scheduler may take to bring the newest signatures of an image that is complete here: what
/// this host has is not to wait for a scheduler that hangs.
const REFRESH_TIMEOUT: Duration = Duration::from_secs(2);

/// Fetches images from the scheduler.
#[derive(Debug, Clone)]
pub(crate) struct ImageFetch {
    client: ControlClient<Channel>,
    store: ImageStore,
    /// Blobs that are arriving. Two components of one image are prepared at the same time, and images share
    /// blobs: whoever comes second waits, and finds the blob here.
    arriving: Arc<Mutex<HashMap<Digest, Weak<tokio::sync::Mutex<()>>>>>,
}

/// An image that could not be fetched.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    #[error("image {} can't be fetched from the scheduler", manifest.short())]
    Scheduler { manifest: Digest, source: Failure },
    #[error("the scheduler took longer than {longest:?} to send a part of image {}", manifest.short())]
    TooSlow { manifest: Digest, longest: Duration },
    #[error("the scheduler's answer for image {} is not valid", manifest.short())]
    Answer { manifest: Digest, source: InvalidField },
    #[error("the scheduler sent image {found} instead of {wanted}")]
    OtherImage { wanted: Digest, found: Digest },
    #[error("image {} is too large: {what}", manifest.short())]
    TooLarge { manifest: Digest, what: String },
    #[error(transparent)]
    Store(#[from] BlobError),
}

impl ImageFetch {
    pub(crate) fn new(channel: Channel, store: ImageStore) -> Self {
        let client = ControlClient::new(channel).max_decoding_message_size(MESSAGE_MAX_BYTES);
        Self { client, store, arriving: Arc::default() }
    }

    /// Brings the image's newest index and all its blobs here. An image that is complete here is taken as it
    /// is when that fails: agents go on without a scheduler.
    pub(crate) async fn ensure(&self, manifest: Digest) -> Result<(), FetchError> {
        let store = self.store.clone();
        let is_here = on_disk_thread(move || store.index(manifest)).await?.is_some();
        match self.fetch(manifest, if is_here { REFRESH_TIMEOUT } else { ANSWER_TIMEOUT }).await {
            Err(error) if is_here => {
                tracing::debug!(%manifest, %error, "the image is taken as it is here");
                Ok(())
            }
            fetched => fetched,
        }
    }

    async fn fetch(&self, manifest: Digest, longest: Duration) -> Result<(), FetchError> {
        let document = within(longest, manifest, self.document(manifest)).await??;
        for blob in &document.blobs {
            if !self.store.has(*blob) {
                self.blob(manifest, *blob).await?;
            }
        }
        let (store, index) = (self.store.clone(), document.index);
        on_disk_thread(move || store.put_index(manifest, index.as_bytes())).await?;
        Ok(())
    }

    async fn document(&self, manifest: Digest) -> Result<ImageDocument, FetchError> {
        let request = v1::GetImageRequest { manifest: manifest.to_string() };
        let mut client = self.client.clone();
        let answer = client
            .get_image(request)
            .await
            .map_err(|status| FetchError::Scheduler { manifest, source: Failure::from(&status) })?;
        let document = ImageDocument::try_from(answer.into_inner())
            .map_err(|source| FetchError::Answer { manifest, source })?;
        check(manifest, &document)?;
        Ok(document)
    }

    async fn blob(&self, manifest: Digest, blob: BlobRef) -> Result<(), FetchError> {
        let failed =
            |status: tonic::Status| FetchError::Scheduler { manifest, source: Failure::from(&status) };
        let arriving = self.arriving(blob.digest);
        let _arriving = arriving.lock().await;
        if self.store.has(blob) {
            return Ok(()); // it arrived meanwhile
        }
        let store = self.store.clone();
        let mut received = on_disk_thread(move || store.receive(blob)).await?;
        let request = v1::GetBlobRequest { digest: blob.digest.to_string(), offset: received.offset() };
        let mut client = self.client.clone();
        let mut chunks =
            within(ANSWER_TIMEOUT, manifest, client.get_blob(request)).await?.map_err(failed)?.into_inner();
        while let Some(chunk) = within(ANSWER_TIMEOUT, manifest, chunks.next()).await? {
            let data = chunk.map_err(failed)?.data;
            received = on_disk_thread(move || {
                received.write(&data)?;
                Ok::<Received, BlobError>(received)
            })
            .await?;
        }
        on_disk_thread(move || received.finish()).await?;
        Ok(())
    }

    /// What is held while the blob arrives.
    fn arriving(&self, blob: Digest) -> Arc<tokio::sync::Mutex<()>> {
        // Each holder changes one entry and can't panic in between.
        let mut all = self.arriving.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, held| held.strong_count() > 0);
        if let Some(held) = all.get(&blob).and_then(Weak::upgrade) {
            return held;
        }
        let held = Arc::default();
        all.insert(blob, Arc::downgrade(&held));
        held
    }
}

async fn within<F: Future>(longest: Duration, manifest: Digest, answer: F) -> Result<F::Output, FetchError> {
    tokio::time::timeout(longest, answer).await.map_err(|_| FetchError::TooSlow { manifest, longest })
}

async fn on_disk_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

fn check(manifest: Digest, document: &ImageDocument) -> Result<(), FetchError> {
    if document.manifest != manifest {
        return Err(FetchError::OtherImage { wanted: manifest, found: document.manifest });
    }
    let too_large = |what: String| Err(FetchError::TooLarge { manifest, what });
    if document.blobs.len() > MAX_BLOBS {
        return too_large(format!("it has {} blobs, and {MAX_BLOBS} is the most", document.blobs.len()));
    }
    let bytes = document.blobs.iter().try_fold(0_u64, |sum, blob| sum.checked_add(blob.size));
    match bytes {
        Some(bytes) if bytes <= MAX_IMAGE_BYTES => Ok(()),
        _ => too_large(format!("its blobs have more than {MAX_IMAGE_BYTES} bytes")),
    }
}
