//! Whether a crate's sources changed since its component was built. Like cargo, it compares the times of files;
//! it looks at the crate alone, not at what the crate depends on.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// What of a crate goes into its component: files beside its manifest, and folders with all that is below.
const SOURCES: [&str; 6] = ["Cargo.toml", "Cargo.lock", "build.rs", ".cargo", "src", "wit"];
/// Most files and folders that are looked at; of a larger crate, the rest is taken for unchanged.
const MAX_SOURCES: usize = 10_000;

/// A source of the crate that was written after `built`. What can't be read is left to the build to complain of.
pub(crate) fn newer_source(crate_directory: &Path, built: SystemTime) -> Option<PathBuf> {
    let mut open: Vec<PathBuf> = SOURCES.iter().map(|name| crate_directory.join(name)).collect();
    let mut seen = 0;
    while let Some(path) = open.pop() {
        seen += 1;
        let Ok(metadata) = path.symlink_metadata() else { continue };
        if metadata.is_dir() {
            let entries = std::fs::read_dir(&path).into_iter().flatten().flatten();
            open.extend(entries.map(|entry| entry.path()).take(MAX_SOURCES.saturating_sub(seen)));
        } else if metadata.modified().is_ok_and(|written| written > built) {
            return Some(path);
        }
        if seen >= MAX_SOURCES {
            break;
        }
    }
    None
}
