//! Reading kept lines.

use std::fs;
use std::io;
use std::path::Path;

use hvm_types::ReplicaId;

use super::file::{current_path, earlier_path};
use super::{LogEntry, Prefix, StoredLine};

/// Most stored lines given out at once.
pub(crate) const MAX_LAST: usize = 10_000;

/// The last `count` kept lines of the selected partitions, oldest first. Lines that a crash cut off are left
/// out. Blocks on the disk.
pub(crate) fn last_lines(root: &Path, prefix: &Prefix, count: usize) -> io::Result<Vec<LogEntry>> {
    let count = count.min(MAX_LAST);
    let mut found = Vec::new();
    if count == 0 {
        return Ok(found);
    }
    for replica in replicas(root, prefix)? {
        let current = current_path(root, &replica);
        let mut lines = read(&current)?;
        if lines.len() < count {
            let mut earlier = read(&earlier_path(&current))?;
            earlier.append(&mut lines);
            lines = earlier;
        }
        let skip = lines.len().saturating_sub(count);
        found.extend(lines.into_iter().skip(skip).map(|line| LogEntry { replica: replica.clone(), line }));
        if found.len() > 2 * count {
            keep_last(&mut found, count);
        }
    }
    keep_last(&mut found, count);
    Ok(found)
}

fn keep_last(entries: &mut Vec<LogEntry>, count: usize) {
    entries.sort_by_key(|entry| entry.line.number);
    entries.drain(..entries.len().saturating_sub(count));
}

fn read(path: &Path) -> io::Result<Vec<StoredLine>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    Ok(bytes.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect())
}

/// The selected partitions that have a log, in order.
fn replicas(root: &Path, prefix: &Prefix) -> io::Result<Vec<ReplicaId>> {
    let mut found = Vec::new();
    let wanted = |name: Option<&str>| name.map(str::to_owned);
    for deployment in names(root, wanted(prefix.deployment.as_ref().map(|name| name.as_str())))? {
        let folder = root.join(&deployment);
        for group in names(&folder, wanted(prefix.group.as_ref().map(|name| name.as_str())))? {
            for file in names(&folder.join(&group), None)? {
                let Some(index) = file.strip_suffix(".log").or_else(|| file.strip_suffix(".log.1")) else {
                    continue;
                };
                let Ok(replica) = format!("{deployment}/{group}/{index}").parse::<ReplicaId>() else {
                    continue;
                };
                if prefix.selects(&replica) {
                    found.push(replica);
                }
            }
        }
    }
    found.sort();
    found.dedup();
    Ok(found)
}

/// The names in a folder, or the one that is wanted. A folder that is not there has none.
fn names(folder: &Path, wanted: Option<String>) -> io::Result<Vec<String>> {
    if let Some(name) = wanted {
        return Ok(vec![name]);
    }
    match fs::read_dir(folder) {
        Ok(entries) => {
            let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
            names.collect()
        }
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(Vec::new())
        }
        Err(error) => Err(error),
    }
}
