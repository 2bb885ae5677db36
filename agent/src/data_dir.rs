//! The agent's directory: its parts, the lock that keeps a second agent out, and writing a file so that a
//! crash leaves the old or the new one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

/// A directory that could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another process has it.
    #[error("use the data directory {}: process {holder} is using it; stop that process or choose another directory", dir.display())]
    Held {
        /// The directory.
        dir: PathBuf,
        /// The other process' id as it wrote it, or `unknown`.
        holder: String,
    },
    /// It can't be made or written.
    #[error("use the data directory {}: it can't be made or written; check its path and owner", dir.display())]
    Unusable {
        /// The directory.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A locked data directory. The lock goes with the value or with the process.
#[derive(Debug)]
pub(crate) struct DataDir {
    root: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Makes `root` where it is missing and locks it.
    pub(crate) fn lock(root: &Path) -> Result<Self, DataDirError> {
        let unusable = |source| DataDirError::Unusable { dir: root.to_owned(), source };
        fs::create_dir_all(root).map_err(unusable)?;
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(root.join("agent.lock"))
            .map_err(unusable)?;
        if let Err(error) = flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            if error != rustix::io::Errno::WOULDBLOCK {
                return Err(unusable(error.into()));
            }
            let mut holder = String::new();
            let read = std::io::Read::by_ref(&mut lock).take(20).read_to_string(&mut holder);
            let known = read.is_ok() && !holder.trim().is_empty();
            let holder = if known { holder.trim().to_owned() } else { "unknown".to_owned() };
            return Err(DataDirError::Held { dir: root.to_owned(), holder });
        }
        lock.set_len(0).map_err(unusable)?;
        lock.rewind().map_err(unusable)?;
        writeln!(lock, "{}", std::process::id()).map_err(unusable)?;
        Ok(Self { root: root.to_owned(), _lock: lock })
    }

    /// A folder in it, made where it is missing.
    pub(crate) fn folder(&self, name: &str) -> Result<PathBuf, DataDirError> {
        let folder = self.root.join(name);
        fs::create_dir_all(&folder)
            .map_err(|source| DataDirError::Unusable { dir: folder.clone(), source })?;
        Ok(folder)
    }

    /// The path of a file in it.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }
}

/// Replaces the file's content; after a crash at any point the old or the new content stands there.
pub(crate) fn replace_file(path: &Path, content: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(content)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    sync_folder(folder)
}

/// Makes the names in a folder durable.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_agent_is_told_who_holds_the_directory() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let held = DataDir::lock(dir.path()).expect("the first takes it");
        let text = DataDir::lock(dir.path()).expect_err("the second is refused").to_string();
        assert!(text.contains(&std::process::id().to_string()), "{text}");
        assert!(text.contains(&dir.path().display().to_string()), "{text}");
        drop(held);
        DataDir::lock(dir.path()).expect("free again");
    }

    #[test]
    fn a_replaced_file_holds_the_new_content_and_nothing_is_left_beside_it() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("document.json");
        replace_file(&path, b"a longer first one").expect("written");
        replace_file(&path, b"second").expect("written");
        assert_eq!(fs::read(&path).expect("there"), b"second");
        assert_eq!(fs::read_dir(dir.path()).expect("readable").count(), 1);
    }
}
