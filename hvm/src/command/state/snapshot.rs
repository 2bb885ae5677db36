//! `hvm state snapshot`: a file for each partition, and the list of them, which is written last.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use hvm_api::v1;
use serde_json::{Value, json};

use super::file::{cannot_write, fetch, folder_of, summary_json, sync_folder};
use super::hosts::Hosts;
use crate::cli::ListArgs;
use crate::failure::Failure;
use crate::{out, table};

/// The list's name in its folder.
pub(super) const MANIFEST: &str = "manifest.json";
/// The version of the list that is written here.
pub(super) const FORMAT: u64 = 1;

/// Runs `hvm state snapshot`.
pub(super) async fn snapshot(of: String, folder: &Path, list: &ListArgs) -> Result<(), Failure> {
    let hosts = Hosts::ask(&list.api, &of).await?;
    let owners = hosts.owners();
    if owners.is_empty() {
        return Err(
            Failure::new(format!("no host has state of `{of}`")).hint("`hvm state ls` shows what there is")
        );
    }
    ensure_empty(folder)?;
    let mut files = Vec::new();
    for (host, v1::StoredState { replica, .. }) in &owners {
        let name = format!("{}.hvmstate", replica.replace('/', "."));
        let path = folder.join(&name);
        let summary = fetch(&mut hosts.agent(host)?, host, replica, &path).await?;
        if !list.json {
            let head = &summary.header.head;
            out::note(format!("{name}: sequence {}, {} bytes", head.sequence, summary.bytes));
        }
        files.push(summary_json(Path::new(&name), &summary));
    }
    let manifest = json!({
        "format": FORMAT,
        "of": of,
        "made_unix_millis": unix_millis(),
        "partitions": files,
    });
    write_durably(&folder.join(MANIFEST), &manifest)?;
    if list.json {
        return table::print_json(&manifest);
    }
    out::line(format!("{} partitions in {}", owners.len(), folder.display()));
    Ok(())
}

fn ensure_empty(folder: &Path) -> Result<(), Failure> {
    fs::create_dir_all(folder).map_err(|error| cannot_write(folder, &error))?;
    let mut entries = fs::read_dir(folder).map_err(|error| cannot_write(folder, &error))?;
    if entries.next().is_some() {
        return Err(
            Failure::new(format!("{} is not empty", folder.display())).hint("name another folder with --out")
        );
    }
    // Its own name must last as well.
    sync_folder(&folder_of(folder)).map_err(|error| cannot_write(folder, &error))
}

fn write_durably(path: &Path, value: &Value) -> Result<(), Failure> {
    let folder = folder_of(path);
    let text = serde_json::to_string_pretty(value)? + "\n";
    let written = tempfile::NamedTempFile::new_in(&folder).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist_noclobber(path)?;
        sync_folder(&folder)
    });
    written.map_err(|error| cannot_write(path, &error))
}

fn unix_millis() -> u64 {
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
