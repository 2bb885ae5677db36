//! State files on this side: one that is under its name was received whole, checked and made durable.

use std::fs::File;
use std::io::{self, BufReader, Write as _};
use std::path::{Path, PathBuf};

use hvm_agent::{StateFileSummary, verify_state_file};
use hvm_api::v1;
use hvm_api::v1::agent_client::AgentClient;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use tempfile::NamedTempFile;
use tonic::transport::Channel;

use crate::failure::Failure;

/// Fetches the state of a partition into a file. What is there already stays.
pub(super) async fn fetch(
    agent: &mut AgentClient<Channel>,
    host: &str,
    partition: &str,
    out: &Path,
) -> Result<StateFileSummary, Failure> {
    let request = v1::ExportStateRequest { replica: partition.to_owned() };
    let failed = |status: tonic::Status| Failure::of_call(host, &status);
    let mut parts = agent.export_state(request).await.map_err(failed)?.into_inner();
    // Made with mode 0600.
    let file = tempfile::Builder::new().prefix(".state-").suffix(".part").tempfile_in(folder_of(out));
    let mut file = file.map_err(|error| cannot_write(out, &error))?;
    let progress = progress("receiving", partition);
    while let Some(part) = parts.message().await.map_err(failed)? {
        if part.stored_bytes > 0 {
            progress.set_length(part.stored_bytes);
        }
        file.write_all(&part.data).map_err(|error| cannot_write(out, &error))?;
        progress.inc(part.data.len() as u64);
    }
    progress.finish_and_clear();
    keep(file, out)
}

/// Checks what was received, makes it durable and gives it its name.
fn keep(file: NamedTempFile, out: &Path) -> Result<StateFileSummary, Failure> {
    let summary = check(file.path()).map_err(|failure| failure.hint("nothing was written"))?;
    file.as_file().sync_all().map_err(|error| cannot_write(out, &error))?;
    file.persist_noclobber(out).map_err(|failed| match failed.error.kind() {
        io::ErrorKind::AlreadyExists => already_there(out),
        _ => cannot_write(out, &failed.error),
    })?;
    sync_folder(&folder_of(out)).map_err(|error| cannot_write(out, &error))?;
    Ok(summary)
}

/// Reads a file to its end.
pub(super) fn check(path: &Path) -> Result<StateFileSummary, Failure> {
    let shown = path.display();
    let file = File::open(path).map_err(|error| Failure::new(format!("can't read {shown}: {error}")))?;
    verify_state_file(BufReader::with_capacity(256 << 10, file))
        .map_err(|error| Failure::about(&shown, error))
}

pub(super) fn folder_of(path: &Path) -> PathBuf {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    folder.unwrap_or(Path::new(".")).to_owned()
}

/// Makes the names in a folder durable.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

pub(super) fn already_there(out: &Path) -> Failure {
    Failure::new(format!("{} is already there", out.display())).hint("name another one with --out")
}

pub(super) fn cannot_write(out: &Path, error: &io::Error) -> Failure {
    Failure::new(format!("can't write {}: {error}", out.display()))
}

/// Shows on a terminal how far a file is.
pub(super) fn progress(doing: &str, what: &str) -> ProgressBar {
    let template = format!("{doing} {what} {{bytes}} of about {{total_bytes}} {{wide_bar}}");
    ProgressBar::new(0).with_style(ProgressStyle::with_template(&template).expect("a valid template"))
}

/// What a file holds, as JSON.
pub(super) fn summary_json(path: &Path, summary: &StateFileSummary) -> Value {
    let (origin, head) = (&summary.header.origin, &summary.header.head);
    json!({
        "file": path,
        "partition": summary.header.partition,
        "host": origin.host,
        "app": origin.app,
        "image": origin.image,
        "state_schema": head.schema,
        "exported_unix_millis": origin.exported_unix_millis,
        "epoch": head.epoch,
        "sequence": head.sequence,
        "entries": summary.entries,
        "stored_bytes": head.stored.0,
        "answers": head.answers,
        "bytes": summary.bytes,
        "digest": summary.digest,
    })
}
