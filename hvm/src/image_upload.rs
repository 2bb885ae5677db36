//! Sending an image file to the scheduler: only the blobs that it lacks, with progress.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use hvm_api::v1;
use hvm_api::v1::put_blob_request::Part;
use hvm_appimage::{BlobSource, ImageListing, TarSource, UnverifiedImage};
use hvm_types::Digest;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::client::Control;
use crate::failure::Failure;

/// Chunks that wait for the network.
const CHUNKS_AHEAD: usize = 4;

/// Sends the image in `path` and registers it. Returns the digest of its manifest.
pub(crate) async fn push(control: &mut Control, path: &Path) -> Result<Digest, Failure> {
    let shown = path.display();
    let source = Arc::new(TarSource::open(path).map_err(|error| Failure::about(&shown, error))?);
    let listing = check(path, Arc::clone(&source))?;
    let blobs: Vec<v1::Blob> = listing
        .blobs
        .iter()
        .map(|(digest, size)| v1::Blob { digest: digest.to_string(), size: *size })
        .collect();
    let request = v1::FindMissingBlobsRequest { blobs: blobs.clone() };
    let missing =
        control.client.find_missing_blobs(request).await.map_err(|status| control.failure(&status))?;
    let missing = missing.into_inner().missing;

    let progress = ProgressBar::new(missing.iter().map(|blob| blob.size).sum());
    progress.set_style(
        ProgressStyle::with_template("sending {bytes}/{total_bytes} {wide_bar}").expect("a valid template"),
    );
    for blob in missing {
        send(control, Arc::clone(&source), blob, progress.clone()).await?;
    }
    progress.finish_and_clear();

    let registration = v1::Image {
        manifest: listing.manifest.to_string(),
        index: listing.index,
        blobs,
        config: listing.config.to_string(),
        ..v1::Image::default()
    };
    control.client.put_image(registration).await.map_err(|status| control.failure(&status))?;
    Ok(listing.manifest)
}

/// Checks every blob's digest before anything is sent, and that somebody signed it: whether a host trusts
/// that somebody is the host's decision.
fn check(path: &Path, source: Arc<TarSource>) -> Result<ImageListing, Failure> {
    let shown = path.display();
    let image = UnverifiedImage::open_shared(source).map_err(|error| Failure::about(&shown, error))?;
    let signers = image.claimed_signers().map_err(|error| Failure::about(&shown, error))?;
    let image = image.without_signature().map_err(|error| Failure::about(&shown, error))?;
    if signers.is_empty() {
        return Err(Failure::new(format!("{shown} is not signed, and hosts run only signed images"))
            .hint(format!("sign it with `appimage-tool sign {shown} --key KEY`")));
    }
    Ok(image.listing())
}

/// Sends one blob.
async fn send(
    control: &mut Control,
    source: Arc<TarSource>,
    blob: v1::Blob,
    progress: ProgressBar,
) -> Result<(), Failure> {
    let digest: Digest = blob.digest.parse()?;
    let (parts, stream) = mpsc::channel(CHUNKS_AHEAD);
    let reader = tokio::task::spawn_blocking(move || -> Result<(), Failure> {
        let head = v1::PutBlobRequest { part: Some(Part::Blob(blob)) };
        let mut open = parts.blocking_send(head).is_ok();
        let mut blob = source.blob(digest)?;
        let mut chunk = vec![0; hvm_api::limit::CHUNK_MAX_BYTES];
        while open {
            let n = blob.reader.read(&mut chunk)?;
            if n == 0 {
                break;
            }
            let data = v1::PutBlobRequest { part: Some(Part::Data(chunk[..n].to_vec())) };
            // A closed stream means that the call failed; its answer says why.
            open = parts.blocking_send(data).is_ok();
            progress.inc(n as u64);
        }
        Ok(())
    });
    let answer = control.client.put_blob(ReceiverStream::new(stream)).await;
    reader.await??;
    answer.map_err(|status| control.failure(&status))?;
    Ok(())
}
