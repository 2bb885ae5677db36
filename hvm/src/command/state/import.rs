//! `hvm state import`.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use hvm_api::limit::CHUNK_MAX_BYTES;
use hvm_api::v1;
use hvm_api::v1::import_state_request::Part;
use indicatif::ProgressBar;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::file::{check, progress};
use super::hosts::{Hosts, one_partition, state_json};
use crate::cli::ListArgs;
use crate::failure::Failure;
use crate::{out, table};

/// Pieces that wait for the network.
const PIECES_AHEAD: usize = 4;

/// Runs `hvm state import`.
pub(super) async fn import(
    partition: &str,
    path: &Path,
    replace: bool,
    list: &ListArgs,
) -> Result<(), Failure> {
    one_partition(partition)?;
    // What is not whole is not even sent. The host checks again.
    let summary = check(path)?;
    let hosts = Hosts::ask(&list.api, partition).await?;
    let (host, stored) = hosts.owner(partition)?;
    if stored.sequence > 0 && !replace {
        return Err(Failure::new(format!("{partition} has state of its own, {} records", stored.sequence))
            .hint(format!("`hvm state export {partition} -o FILE` keeps it; --replace replaces it")));
    }
    let progress = progress("sending", partition);
    progress.set_length(summary.bytes);
    let (sender, receiver) = mpsc::channel(PIECES_AHEAD);
    let start = Part::Start(v1::ImportStateStart { replica: partition.to_owned(), replace });
    let file = File::open(path)?;
    let (sending, shown) = (progress.clone(), path.display().to_string());
    let reading = tokio::task::spawn_blocking(move || send(file, &shown, start, &sender, &sending));
    let answer = hosts.agent(&host)?.import_state(ReceiverStream::new(receiver)).await;
    // Where the host refuses, it stops reading, and so does this.
    let sent = reading.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
    progress.finish_and_clear();
    let answer = answer.map_err(|status| Failure::of_call(&host, &status));
    sent?;
    let answer = answer?.into_inner();
    let state = answer.partition.unwrap_or_default();
    if list.json {
        return table::print_json(&state_json(&host, &state));
    }
    out::line(format!(
        "{partition} on {host} goes on from sequence {}: {} keys, {}, {} answers",
        state.sequence,
        answer.entries,
        table::bytes(state.stored_bytes),
        state.answers
    ));
    Ok(())
}

/// Sends what the import is for and then the file, until its end or until nobody takes it.
fn send(
    mut file: File,
    shown: &str,
    start: Part,
    pieces: &mpsc::Sender<v1::ImportStateRequest>,
    progress: &ProgressBar,
) -> Result<(), Failure> {
    let mut next = start;
    loop {
        if pieces.blocking_send(v1::ImportStateRequest { part: Some(next) }).is_err() {
            return Ok(());
        }
        let mut data = Vec::new();
        let read = file.by_ref().take(CHUNK_MAX_BYTES as u64).read_to_end(&mut data);
        // A file that can't be read to its end ends the stream early, and the host takes nothing of it.
        read.map_err(|error| Failure::new(format!("can't read {shown}: {error}")))?;
        if data.is_empty() {
            return Ok(());
        }
        progress.inc(data.len() as u64);
        next = Part::Data(data);
    }
}
