//! Which blobs are here, and reading them.

use std::collections::HashSet;
use std::io::SeekFrom;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use hvm_types::{BlobRef, Digest};
use tokio::fs::File;
use tokio::io::AsyncSeekExt as _;

use super::BlobError;

/// Largest blob: far above any component, far below what would fill a disk at once.
pub(crate) const MAX_BLOB_BYTES: u64 = 1 << 30;

/// The blobs of one scheduler.
#[derive(Debug)]
pub(crate) struct BlobStore {
    root: PathBuf,
    /// Digests that somebody is sending now.
    pub(super) receiving: Arc<Mutex<HashSet<Digest>>>,
}

impl BlobStore {
    /// Opens the store in `root`, and creates its directories.
    pub(crate) fn open(root: &Path) -> Result<Self, BlobError> {
        let store = Self { root: root.to_owned(), receiving: Arc::default() };
        for directory in [store.blob_directory(), store.root.join("partial")] {
            std::fs::create_dir_all(&directory)
                .map_err(|source| BlobError::io("create", &directory, source))?;
        }
        Ok(store)
    }

    /// The directory that holds `blobs/sha256`.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    fn blob_directory(&self) -> PathBuf {
        self.root.join("blobs").join("sha256")
    }

    pub(super) fn path(&self, digest: Digest) -> PathBuf {
        self.blob_directory().join(digest.to_hex())
    }

    pub(super) fn partial_path(&self, digest: Digest) -> PathBuf {
        self.root.join("partial").join(digest.to_hex())
    }

    /// The size of a blob that is here.
    pub(crate) async fn size(&self, digest: Digest) -> Result<Option<u64>, BlobError> {
        size_of(&self.path(digest)).await
    }

    /// Whether the blob is here.
    pub(crate) async fn has(&self, blob: BlobRef) -> Result<bool, BlobError> {
        Ok(self.size(blob.digest).await? == Some(blob.size))
    }

    /// How many bytes of a blob arrived before its sending was interrupted.
    pub(crate) async fn received(&self, digest: Digest) -> Result<u64, BlobError> {
        Ok(size_of(&self.partial_path(digest)).await?.unwrap_or(0))
    }

    /// A whole small blob.
    pub(crate) async fn read(&self, blob: BlobRef, max_bytes: u64) -> Result<Vec<u8>, BlobError> {
        if blob.size > max_bytes {
            return Err(BlobError::TooLarge { digest: blob.digest, size: blob.size, max_bytes });
        }
        let path = self.path(blob.digest);
        let bytes = tokio::fs::read(&path).await.map_err(|source| BlobError::io("read", &path, source))?;
        if Digest::of(&bytes) != blob.digest {
            return Err(BlobError::Damaged { path });
        }
        Ok(bytes)
    }

    /// A blob's file, standing at `offset`, and its size.
    pub(crate) async fn open_at(&self, digest: Digest, offset: u64) -> Result<(File, u64), BlobError> {
        let size = self.size(digest).await?.ok_or(BlobError::Missing { digest })?;
        if offset > size {
            return Err(BlobError::WrongOffset { digest, offset, have: size });
        }
        let path = self.path(digest);
        let open = async {
            let mut file = File::open(&path).await?;
            file.seek(SeekFrom::Start(offset)).await?;
            Ok(file)
        };
        Ok((open.await.map_err(|source| BlobError::io("read", &path, source))?, size))
    }
}

async fn size_of(path: &Path) -> Result<Option<u64>, BlobError> {
    match tokio::fs::metadata(path).await {
        Ok(metadata) => Ok(Some(metadata.len())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(BlobError::io("read", path, source)),
    }
}
