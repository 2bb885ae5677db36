//! A directory of blobs, shared by many images: `blobs/sha256/<hex>` as in an OCI image layout.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use hvm_types::Digest;

use crate::blob::{Blob, BlobSource};
use crate::limit::MAX_INDEX_BYTES;
use crate::read_error::ReadError;

/// A directory of blobs, and the index of the one image that is looked at.
#[derive(Debug, Clone)]
pub struct DirSource {
    root: PathBuf,
    index: Vec<u8>,
}

impl DirSource {
    /// The image with this index, whose blobs stand under `root` as [`DirSource::blob_path`] says.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>, index: Vec<u8>) -> Self {
        Self { root: root.into(), index }
    }

    /// Where a blob belongs in such a directory. Whoever puts one there writes it elsewhere first, checks its
    /// digest and renames it.
    #[must_use]
    pub fn blob_path(root: &Path, digest: Digest) -> PathBuf {
        root.join("blobs").join("sha256").join(digest.to_hex())
    }
}

impl BlobSource for DirSource {
    fn index(&self) -> Result<Vec<u8>, ReadError> {
        let found = self.index.len() as u64;
        if found > MAX_INDEX_BYTES {
            let what = "index.json".to_owned();
            return Err(ReadError::TooLarge { what, found, limit: MAX_INDEX_BYTES });
        }
        Ok(self.index.clone())
    }

    fn blob(&self, digest: Digest) -> Result<Blob<'_>, ReadError> {
        let path = Self::blob_path(&self.root, digest);
        let opened = File::open(&path).and_then(|file| {
            let metadata = file.metadata()?;
            Ok((file, metadata))
        });
        match opened {
            Ok((file, metadata)) if metadata.is_file() => {
                Ok(Blob { size: metadata.len(), reader: Box::new(file) })
            }
            Ok(_) => Err(ReadError::MissingBlob { digest }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(ReadError::MissingBlob { digest }),
            Err(source) => Err(ReadError::Io { path, source }),
        }
    }

    fn all_blobs(&self) -> Option<Vec<Digest>> {
        None
    }
}
