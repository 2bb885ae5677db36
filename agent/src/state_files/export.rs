//! Exporting a partition's state into the answer to whoever asked.

use futures::{Stream, stream};
use hvm_api::{ErrorKind, Failure, v1};
use hvm_runtime::state::file::{self, ExportError, Origin};
use hvm_runtime::state::{ReadError, Scan};
use hvm_types::{Digest, ImageConfig, ReplicaId};
use tokio::runtime::Handle;
use tokio::sync::mpsc::{Receiver, channel};
use tokio::task::JoinHandle;
use tonic::Status;

use super::pipe::{PIECES_AHEAD, PieceWriter};
use super::stored::{StateFiles, blocking, read_failure};
use crate::failure_text::with_causes;
use crate::usage::unix_millis;

/// An export under way.
struct Export {
    pieces: Receiver<Vec<u8>>,
    writing: Option<JoinHandle<Result<(), ExportError>>>,
}

impl StateFiles {
    /// The state file of a partition. Who stops reading ends it.
    pub(crate) async fn export(
        &self,
        id: ReplicaId,
    ) -> Result<impl Stream<Item = Result<v1::StateFilePart, Status>> + Send + use<>, Failure> {
        let place = self.place().await?;
        let scan = self.scan(&id).await?;
        let stored_bytes = scan.head().map_err(read_failure)?.stored.0;
        let origin = self.origin(&id).await;
        let (sender, pieces) = channel(PIECES_AHEAD);
        let out = PieceWriter::new(sender, Handle::current());
        let writing = tokio::task::spawn_blocking(move || {
            let exported = write(&*scan, &id, origin, out);
            drop(place);
            exported
        });
        let export = Export { pieces, writing: Some(writing) };
        let parts = stream::unfold(export, |mut export| async move { Some((export.next().await?, export)) });
        let first = v1::StateFilePart { stored_bytes, data: Vec::new() };
        Ok(futures::StreamExt::chain(stream::iter([Ok(first)]), parts))
    }

    /// Where the state of a partition comes from, as far as this host knows.
    async fn origin(&self, id: &ReplicaId) -> Origin {
        let image = self.registry.image(id);
        let config = match image {
            Some(image) => self.image_config(image).await,
            None => None,
        };
        Origin {
            image,
            app: config.map(|config| format!("{} {}", config.app, config.version)),
            host: Some(self.host.to_string()),
            exported_unix_millis: unix_millis(),
        }
    }

    /// What an image says of itself, if it is here and trusted.
    pub(super) async fn image_config(&self, image: Digest) -> Option<ImageConfig> {
        let (trust, images) = (self.trust.clone(), self.images.clone());
        let verified = blocking(move || trust.verify(&images, image)).await;
        verified.ok().map(|image| image.config().clone())
    }
}

fn write(scan: &dyn Scan, id: &ReplicaId, origin: Origin, out: PieceWriter) -> Result<(), ExportError> {
    file::export(scan, id, origin, out).map(drop)
}

impl Export {
    async fn next(&mut self) -> Option<Result<v1::StateFilePart, Status>> {
        if let Some(data) = self.pieces.recv().await {
            return Some(Ok(v1::StateFilePart { stored_bytes: 0, data }));
        }
        // A file that broke off must not end like one that is whole.
        let written = self.writing.take()?.await;
        match written.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic())) {
            Ok(()) => None,
            Err(error) => Some(Err(failure(&error).into())),
        }
    }
}

fn failure(error: &ExportError) -> Failure {
    let kind = match error {
        ExportError::Read(ReadError::Corrupt { .. }) | ExportError::Corrupt { .. } => ErrorKind::Corrupt,
        ExportError::Read(_) | ExportError::Write(_) => ErrorKind::Unavailable,
    };
    Failure::new(kind, with_causes(error))
}
