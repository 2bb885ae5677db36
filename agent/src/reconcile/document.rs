//! Host documents on disk, the newest first of all, so that an agent that starts without a scheduler runs what it had.

use std::io;
use std::path::PathBuf;

use hvm_types::HostDocument;

use crate::data_dir::replace_file;

/// Where the document is kept.
#[derive(Debug, Clone)]
pub(crate) struct DocumentStore {
    path: PathBuf,
}

/// A document that can't be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// The disk refused.
    #[error("read or write {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is damaged.
    #[error("read {}: it is damaged; remove it, and the agent fetches it from the scheduler again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

impl DocumentStore {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// The kept document; `None` where none was kept yet.
    pub(crate) fn load(&self) -> Result<Option<HostDocument>, DocumentError> {
        let path = || self.path.clone();
        match std::fs::read(&self.path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|source| DocumentError::Damaged { path: path(), source }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(DocumentError::Io { path: path(), source }),
        }
    }

    /// Keeps a document. Blocks on the disk.
    pub(crate) fn save(&self, document: &HostDocument) -> Result<(), DocumentError> {
        let bytes = serde_json::to_vec(document).expect("a document has only text keys");
        replace_file(&self.path, &bytes)
            .map_err(|source| DocumentError::Io { path: self.path.clone(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_reads_back_and_a_damaged_one_is_an_error() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let store = DocumentStore::new(dir.path().join("document.json"));
        assert_eq!(store.load().expect("none yet"), None);
        let document = HostDocument { version: 7, ..HostDocument::default() };
        store.save(&document).expect("kept");
        assert_eq!(store.load().expect("there"), Some(document));
        std::fs::write(dir.path().join("document.json"), "{").expect("written");
        assert!(matches!(store.load(), Err(DocumentError::Damaged { .. })));
    }
}
