//! The files of one partition's log: the current one and the one before it, both bounded.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use hvm_types::ReplicaId;

/// Largest file; a partition keeps two.
pub(crate) const MAX_FILE_BYTES: u64 = 1 << 20;

/// A log file that is open for appending.
#[derive(Debug)]
pub(crate) struct LogFile {
    path: PathBuf,
    file: File,
    size: u64,
}

/// The current file of a partition.
pub(crate) fn current_path(root: &Path, replica: &ReplicaId) -> PathBuf {
    let folder = root.join(replica.deployment.as_str()).join(replica.group.as_str());
    folder.join(format!("{}.log", replica.index))
}

/// The file before the current one.
pub(crate) fn earlier_path(current: &Path) -> PathBuf {
    current.with_extension("log.1")
}

/// Deletes both files.
pub(crate) fn remove(root: &Path, replica: &ReplicaId) -> io::Result<()> {
    let current = current_path(root, replica);
    for path in [earlier_path(&current), current] {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

impl LogFile {
    pub(crate) fn open(root: &Path, replica: &ReplicaId) -> io::Result<Self> {
        let path = current_path(root, replica);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(&path)?;
        let mut size = file.metadata()?.len();
        if size > 0 {
            // A line that a crash cut off must not swallow the next one.
            let mut last = [0];
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
            if last != *b"\n" {
                file.write_all(b"\n")?;
                size += 1;
            }
        }
        Ok(Self { path, file, size })
    }

    /// Appends whole lines, after making room where the file would grow too large.
    pub(crate) fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        let length = lines.len() as u64;
        if self.size > 0 && self.size + length > MAX_FILE_BYTES {
            fs::rename(&self.path, earlier_path(&self.path))?;
            self.file = OpenOptions::new().read(true).append(true).create(true).open(&self.path)?;
            self.size = 0;
        }
        self.file.write_all(lines)?;
        self.size += length;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_never_grows_beyond_two_files() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let replica: ReplicaId = "d/g/0".parse().expect("a replica");
        let mut file = LogFile::open(dir.path(), &replica).expect("open");
        let line = [&[b'x'; 1023][..], b"\n"].concat();
        for _ in 0..3 * 1024 {
            file.append(&line).expect("appended");
        }
        let current = current_path(dir.path(), &replica);
        let sizes = [&current, &earlier_path(&current)].map(|path| fs::metadata(path).expect("there").len());
        assert!(sizes.iter().all(|size| (1..=MAX_FILE_BYTES).contains(size)), "{sizes:?}");
        assert_eq!(fs::read_dir(current.parent().expect("a folder")).expect("readable").count(), 2);
        remove(dir.path(), &replica).expect("removed");
        remove(dir.path(), &replica).expect("removing nothing is no error");
        assert!(!current.exists());
    }

    #[test]
    fn a_line_that_was_cut_off_is_closed() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let replica: ReplicaId = "d/g/0".parse().expect("a replica");
        LogFile::open(dir.path(), &replica).expect("open").append(b"whole\nha").expect("appended");
        LogFile::open(dir.path(), &replica).expect("open").append(b"next\n").expect("appended");
        let text = fs::read_to_string(current_path(dir.path(), &replica)).expect("there");
        assert_eq!(text, "whole\nha\nnext\n");
    }
}
