//! A blob that is arriving: checked while it is written, visible only when it is whole and on disk.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use hvm_types::{BlobRef, Digest};
use sha2::{Digest as _, Sha256};
use tokio::fs::{File, OpenOptions};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::store::MAX_BLOB_BYTES;
use super::{BlobError, BlobStore};

const READ_BYTES: usize = 256 << 10;

/// Keeps others from sending the same blob; gone with the sender, whatever ends it.
#[derive(Debug)]
struct Claim {
    digest: Digest,
    claims: Arc<Mutex<HashSet<Digest>>>,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.digest);
    }
}

/// A blob that is arriving. Dropped unfinished, what arrived stays, to be continued.
#[derive(Debug)]
pub(crate) struct Receiving {
    blob: BlobRef,
    path: PathBuf,
    whole: PathBuf,
    file: File,
    hash: Sha256,
    received: u64,
    _claim: Claim,
}

impl BlobStore {
    /// Begins to receive a blob, at 0 or where an interrupted sender stopped.
    pub(crate) async fn receive(&self, blob: BlobRef, offset: u64) -> Result<Receiving, BlobError> {
        let BlobRef { digest, size } = blob;
        if size > MAX_BLOB_BYTES {
            return Err(BlobError::TooLarge { digest, size, max_bytes: MAX_BLOB_BYTES });
        }
        if !self.receiving.lock().unwrap_or_else(PoisonError::into_inner).insert(digest) {
            return Err(BlobError::Busy { digest });
        }
        let claim = Claim { digest, claims: Arc::clone(&self.receiving) };
        let path = self.partial_path(digest);
        let open = async {
            let mut options = OpenOptions::new();
            options.create(true).truncate(offset == 0).read(true).write(true);
            let mut file = options.open(&path).await?;
            let mut hash = Sha256::new();
            let mut received = 0;
            let mut buffer = vec![0; READ_BYTES];
            loop {
                let read = file.read(&mut buffer).await?;
                if read == 0 {
                    return Ok((file, hash, received));
                }
                hash.update(&buffer[..read]);
                received += read as u64;
            }
        };
        let (file, hash, received) = open.await.map_err(|source| BlobError::io("write", &path, source))?;
        if received != offset {
            return Err(BlobError::WrongOffset { digest, offset, have: received });
        }
        Ok(Receiving { blob, whole: self.path(digest), path, file, hash, received, _claim: claim })
    }
}

impl Receiving {
    /// Takes the next bytes.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> Result<(), BlobError> {
        let BlobRef { digest, size } = self.blob;
        if self.received + bytes.len() as u64 > size {
            return Err(BlobError::Overlong { digest, size });
        }
        self.file.write_all(bytes).await.map_err(|source| BlobError::io("write", &self.path, source))?;
        self.hash.update(bytes);
        self.received += bytes.len() as u64;
        Ok(())
    }

    /// Makes the blob visible, once it is whole, right and on disk.
    pub(crate) async fn finish(mut self) -> Result<(), BlobError> {
        let BlobRef { digest, size } = self.blob;
        let io = |source| BlobError::io("write", &self.path, source);
        self.file.flush().await.map_err(io)?;
        if self.received < size {
            return Err(BlobError::Incomplete { digest, received: self.received, size });
        }
        let found = Digest::from_bytes(self.hash.finalize().into());
        if found != digest {
            tokio::fs::remove_file(&self.path).await.map_err(io)?;
            return Err(BlobError::WrongDigest { digest, found });
        }
        self.file.sync_all().await.map_err(io)?;
        tokio::fs::rename(&self.path, &self.whole).await.map_err(io)?;
        let directory = self.whole.parent().unwrap_or(&self.whole);
        let sync = async { File::open(directory).await?.sync_all().await };
        sync.await.map_err(|source| BlobError::io("write", directory, source))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blob(bytes: &[u8]) -> BlobRef {
        BlobRef { digest: Digest::of(bytes), size: bytes.len() as u64 }
    }

    #[tokio::test]
    async fn an_interrupted_blob_continues_where_it_stopped() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let store = BlobStore::open(directory.path()).expect("the store opens");
        let blob = blob(b"hello world");
        let mut first = store.receive(blob, 0).await.expect("nothing is here");
        first.write(b"hello ").await.expect("room");
        assert!(matches!(store.receive(blob, 0).await, Err(BlobError::Busy { .. })));
        assert!(matches!(first.finish().await, Err(BlobError::Incomplete { received: 6, .. })));
        assert_eq!(store.received(blob.digest).await.expect("readable"), 6);
        assert!(matches!(store.receive(blob, 5).await, Err(BlobError::WrongOffset { have: 6, .. })));

        let mut second = store.receive(blob, 6).await.expect("six bytes are here");
        second.write(b"world").await.expect("room");
        assert!(!store.has(blob).await.expect("readable"), "half a blob was visible");
        second.finish().await.expect("whole");
        assert!(store.has(blob).await.expect("readable"));
        assert_eq!(store.read(blob, 100).await.expect("readable"), b"hello world");
    }

    #[tokio::test]
    async fn wrong_and_surplus_bytes_are_refused_and_leave_nothing() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let store = BlobStore::open(directory.path()).expect("the store opens");
        let blob = blob(b"hello");
        let mut wrong = store.receive(blob, 0).await.expect("nothing is here");
        wrong.write(b"jello").await.expect("room");
        assert!(matches!(wrong.finish().await, Err(BlobError::WrongDigest { .. })));
        assert_eq!(store.received(blob.digest).await.expect("readable"), 0);

        let mut long = store.receive(blob, 0).await.expect("nothing is here");
        assert!(matches!(long.write(b"hello!").await, Err(BlobError::Overlong { .. })));
        let huge = BlobRef { size: MAX_BLOB_BYTES + 1, ..blob };
        assert!(matches!(store.receive(huge, 0).await, Err(BlobError::TooLarge { .. })));
        assert!(!store.has(blob).await.expect("readable"));
    }

    #[tokio::test]
    async fn a_damaged_blob_is_not_given_out_as_whole() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let store = BlobStore::open(directory.path()).expect("the store opens");
        let blob = blob(b"hello");
        let mut receiving = store.receive(blob, 0).await.expect("nothing is here");
        receiving.write(b"hello").await.expect("room");
        receiving.finish().await.expect("whole");
        std::fs::write(store.path(blob.digest), b"jello").expect("the file is there");
        assert!(matches!(store.read(blob, 100).await, Err(BlobError::Damaged { .. })));
        assert!(matches!(store.open_at(blob.digest, 6).await, Err(BlobError::WrongOffset { .. })));
    }
}
