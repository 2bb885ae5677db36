//! Importing a state file that arrives in pieces: it is read to its end beside the partition that runs, and put
//! in place between two of its commands.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use hvm_api::v1::import_state_request::Part;
use hvm_api::{ErrorKind, Failure, v1};
use hvm_runtime::UpgradeError;
use hvm_runtime::state::file::{self, FileError, FileHeader, FileImportError, FileReader, FileSummary};
use hvm_runtime::state::{Import, ImportHead, PartitionInfo, StateEngine};
use hvm_types::{Epoch, ReplicaId, Sequence};
use tokio::runtime::Handle;
use tokio::sync::mpsc::{Sender, channel};
use tonic::Streaming;

use super::pipe::{PIECES_AHEAD, PieceReader};
use super::stored::{StateFiles, blocking, import_failure, read_failure, wire};
use crate::failure_text::with_causes;
use crate::service::one_replica;

/// What an import is for.
struct Target {
    id: ReplicaId,
    epoch: Epoch,
    replace: bool,
    /// The form of the state that the app which runs reads, where that is known.
    state_schema: Option<u32>,
}

type ReadIn = Result<(Box<dyn Import>, FileSummary), Failure>;

impl StateFiles {
    /// Takes a state file in.
    pub(crate) async fn import(
        &self,
        mut parts: Streaming<v1::ImportStateRequest>,
    ) -> Result<v1::ImportStateResponse, Failure> {
        let first = parts.message().await.map_err(|status| Failure::from(&status))?;
        let Some(v1::ImportStateRequest { part: Some(Part::Start(start)) }) = first else {
            return Err(Failure::new(ErrorKind::Invalid, "an import begins with what it is for"));
        };
        let id = one_replica(&start.replica)?;
        let _place = self.place().await?;
        let head = self.scan(&id).await?.head().map_err(read_failure)?;
        let state_schema = match self.registry.image(&id) {
            Some(image) => self.image_config(image).await.map(|config| config.state_schema),
            None => None,
        };
        let target = Target { id: id.clone(), epoch: head.epoch, replace: start.replace, state_schema };

        let (sender, pieces) = channel(PIECES_AHEAD);
        let (engine, from) = (Arc::clone(&self.engine), PieceReader::new(pieces, Handle::current()));
        let reading = blocking(move || target.read_in(&*engine, from));
        // Where the reader ends before the file does, nobody takes the rest.
        let (read, ()) = futures::join!(reading, forward(parts, sender));
        let (import, summary) = read?;
        let entries = summary.entries;
        let info = self.put_in_place(&id, import, (&summary.header.head).into()).await?;
        tracing::info!(%id, sequence = %info.sequence, "state was imported");
        Ok(v1::ImportStateResponse { partition: Some(wire(&info, &self.running())), entries })
    }

    async fn put_in_place(
        &self,
        id: &ReplicaId,
        import: Box<dyn Import>,
        head: ImportHead,
    ) -> Result<PartitionInfo, Failure> {
        if self.running().contains_key(id) {
            self.hvm.import(id, import, head).await.map_err(|error| upgrade_failure(&error))?;
            let head = self.scan(id).await?.head().map_err(read_failure)?;
            return Ok(PartitionInfo {
                id: id.clone(),
                epoch: head.epoch,
                sequence: head.sequence,
                stored: head.stored,
                answers: head.answers,
                meter: head.meter,
                owner: None,
            });
        }
        // Who opens it meanwhile finds its state removed, and opens it again.
        blocking(move || import.finish(&head)).await.map_err(|error| import_failure(&error))
    }
}

/// Passes on the bytes until they end or nobody takes them.
async fn forward(mut parts: Streaming<v1::ImportStateRequest>, pieces: Sender<io::Result<Bytes>>) {
    loop {
        let piece = match parts.message().await {
            Ok(Some(v1::ImportStateRequest { part: Some(Part::Data(data)) })) => Ok(data.into()),
            Ok(Some(_)) => Err(io::Error::new(io::ErrorKind::InvalidData, "it holds more than a file")),
            Ok(None) => return,
            Err(status) => Err(io::Error::other(status.message().to_owned())),
        };
        if pieces.send(piece).await.is_err() {
            return;
        }
    }
}

impl Target {
    /// Reads a file to its end into an import.
    fn read_in(&self, engine: &dyn StateEngine, from: PieceReader) -> ReadIn {
        let mut file = FileReader::begin(from).map_err(|error| file_failure(&error))?;
        self.check(file.header())?;
        let begun = engine.import(&self.id, self.epoch, self.replace);
        let mut import = begun.map_err(|error| import_failure(&error))?;
        let summary = file::import(&mut file, &mut *import).map_err(|error| match error {
            FileImportError::File(error) => file_failure(&error),
            FileImportError::Import(error) => import_failure(&error),
        })?;
        Ok((import, summary))
    }

    fn check(&self, header: &FileHeader) -> Result<(), Failure> {
        let invalid = |text: String| Err(Failure::new(ErrorKind::Invalid, text));
        let (from, to) = (&header.partition, &self.id);
        if from.index != to.index {
            // Keys are spread over partitions by their number: no request would find these.
            return invalid(format!(
                "the file holds partition {from}, whose keys do not belong to {to}: import it to number {}",
                from.index
            ));
        }
        let (of_file, is_empty) = (header.head.schema.unwrap_or(1), header.head.sequence == Sequence(0));
        match self.state_schema {
            Some(known) if of_file != known && !is_empty => invalid(format!(
                "the file's state has schema {of_file} and the image that runs as {to} knows {known}: import it while a \
                 version with schema {of_file} runs, and deploy the other one after it"
            )),
            _ => Ok(()),
        }
    }
}

fn file_failure(error: &FileError) -> Failure {
    let kind = match error {
        FileError::NotAStateFile | FileError::Version { .. } => ErrorKind::Invalid,
        FileError::Cut { .. } | FileError::Damaged { .. } => ErrorKind::Corrupt,
        FileError::Io { .. } => ErrorKind::Unavailable,
    };
    Failure::new(kind, with_causes(error))
}

fn upgrade_failure(error: &UpgradeError) -> Failure {
    match error {
        UpgradeError::Import(error) => import_failure(error),
        error => Failure::new(ErrorKind::Unavailable, with_causes(error)),
    }
}
