//! `hvm state export`.

use std::path::Path;

use super::file::{already_there, fetch, summary_json};
use super::hosts::{Hosts, one_partition};
use crate::cli::ListArgs;
use crate::failure::Failure;
use crate::{out, table};

/// Runs `hvm state export`.
pub(super) async fn export(partition: &str, file: &Path, list: &ListArgs) -> Result<(), Failure> {
    one_partition(partition)?;
    if file.exists() {
        return Err(already_there(file));
    }
    let hosts = Hosts::ask(&list.api, partition).await?;
    let (host, _) = hosts.owner(partition)?;
    let summary = fetch(&mut hosts.agent(&host)?, &host, partition, file).await?;
    if list.json {
        return table::print_json(&summary_json(file, &summary));
    }
    let (head, shown) = (&summary.header.head, file.display());
    out::line(format!(
        "{partition} of {host} at sequence {}: {} keys, {}, {} answers",
        head.sequence, summary.entries, head.stored, head.answers
    ));
    out::line(format!("wrote {shown} ({} bytes, {})", summary.bytes, summary.digest));
    Ok(())
}
