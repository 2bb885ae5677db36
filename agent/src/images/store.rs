//! Blobs and indexes on disk: `blobs/sha256/<hex>` as in an OCI image layout, `indexes/<hex>.json` by the
//! manifest's digest, and `partial/<hex>` for what is still arriving.
//!
//! A file under `blobs` or `indexes` is complete: it was written elsewhere, made durable and renamed. A blob
//! had the right digest at that time; the reader of an image checks again.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use hvm_appimage::{DirSource, MAX_INDEX_BYTES};
use hvm_types::{BlobRef, Digest};
use sha2::{Digest as _, Sha256};

use crate::data_dir::{replace_file, sync_folder};

/// Images of one host. All its methods block on the disk.
#[derive(Debug, Clone)]
pub(crate) struct ImageStore {
    root: PathBuf,
}

/// A blob that could not be received or kept.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// What arrived is not what was asked for. It was thrown away.
    #[error("blob {} arrived with the wrong content: its digest is {found}; it was thrown away", wanted.digest)]
    WrongDigest {
        /// What was asked for.
        wanted: BlobRef,
        /// The digest of what arrived.
        found: Digest,
    },
    /// More arrived than the blob has. It was thrown away.
    #[error("blob {} arrived longer than its {} bytes; it was thrown away", wanted.digest, wanted.size)]
    TooLong {
        /// What was asked for.
        wanted: BlobRef,
    },
    /// The sender stopped early. What arrived is kept, and the next try goes on from there.
    #[error("blob {} broke off after {received} of {} bytes; the next try goes on from there", wanted.digest, wanted.size)]
    Truncated {
        /// What was asked for.
        wanted: BlobRef,
        /// Bytes that are here.
        received: u64,
    },
    /// An index is longer than an image may have.
    #[error("index of image {manifest} has {size} bytes, more than {MAX_INDEX_BYTES}")]
    IndexTooLong {
        /// The image.
        manifest: Digest,
        /// Its bytes.
        size: usize,
    },
    /// The disk refused.
    #[error("image store: {} can't be read or written", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// How many bytes are read at a time while a digest is computed.
const READ_BYTES: usize = 64 << 10;

impl ImageStore {
    /// The store in `root`, made where it is missing.
    pub(crate) fn open(root: PathBuf) -> Result<Self, BlobError> {
        for folder in ["blobs/sha256", "indexes", "partial"] {
            let path = root.join(folder);
            fs::create_dir_all(&path).map_err(|source| BlobError::Io { path, source })?;
        }
        Ok(Self { root })
    }

    /// The index of an image that is complete here; `None` where it is not.
    pub(crate) fn index(&self, manifest: Digest) -> Result<Option<Vec<u8>>, BlobError> {
        let path = self.index_path(manifest);
        match fs::read(&path) {
            Ok(index) => Ok(Some(index)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(BlobError::Io { path, source }),
        }
    }

    /// Keeps the index of an image all of whose blobs are here.
    pub(crate) fn put_index(&self, manifest: Digest, index: &[u8]) -> Result<(), BlobError> {
        if index.len() as u64 > MAX_INDEX_BYTES {
            return Err(BlobError::IndexTooLong { manifest, size: index.len() });
        }
        let path = self.index_path(manifest);
        replace_file(&path, index).map_err(|source| BlobError::Io { path, source })
    }

    /// Whether the blob is here, complete.
    pub(crate) fn has(&self, blob: BlobRef) -> bool {
        fs::metadata(self.blob_path(blob.digest)).is_ok_and(|file| file.len() == blob.size)
    }

    /// Forgets a blob whose content turned out to be damaged on disk, so that it is fetched again.
    pub(crate) fn discard(&self, digest: Digest) -> Result<(), BlobError> {
        let path = self.blob_path(digest);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(BlobError::Io { path, source: error })
            }
            _ => Ok(()),
        }
    }

    /// What a reader of images reads from.
    pub(crate) fn source(&self, index: Vec<u8>) -> DirSource {
        DirSource::new(&self.root, index)
    }

    /// Begins to receive a blob, or goes on where an earlier try stopped.
    pub(crate) fn receive(&self, wanted: BlobRef) -> Result<Received, BlobError> {
        let path = self.root.join("partial").join(wanted.digest.to_hex());
        let target = self.blob_path(wanted.digest);
        Received::open(wanted, path.clone(), target).map_err(|source| BlobError::Io { path, source })
    }

    fn blob_path(&self, digest: Digest) -> PathBuf {
        DirSource::blob_path(&self.root, digest)
    }

    fn index_path(&self, manifest: Digest) -> PathBuf {
        self.root.join("indexes").join(format!("{}.json", manifest.to_hex()))
    }
}

/// A blob while it arrives.
#[derive(Debug)]
pub(crate) struct Received {
    wanted: BlobRef,
    path: PathBuf,
    target: PathBuf,
    file: File,
    hash: Sha256,
    length: u64,
}

impl Received {
    fn open(wanted: BlobRef, path: PathBuf, target: PathBuf) -> io::Result<Self> {
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path)?;
        let (mut hash, mut length) = (Sha256::new(), 0);
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let read = file.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            hash.update(&buffer[..read]);
            length += read as u64;
        }
        // A full-length leftover is wrong, or it would have been moved: it begins anew.
        if length >= wanted.size {
            file.set_len(0)?;
            file.seek(SeekFrom::Start(0))?;
            (hash, length) = (Sha256::new(), 0);
        }
        Ok(Self { wanted, path, target, file, hash, length })
    }

    /// How many bytes are here already: where the sender goes on.
    pub(crate) fn offset(&self) -> u64 {
        self.length
    }

    /// Takes the next bytes.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), BlobError> {
        let length = self.length + bytes.len() as u64;
        if length > self.wanted.size {
            self.throw_away()?;
            return Err(BlobError::TooLong { wanted: self.wanted });
        }
        self.file.write_all(bytes).map_err(|source| io_error(&self.path, source))?;
        self.hash.update(bytes);
        self.length = length;
        Ok(())
    }

    /// Checks the whole and moves it to its place.
    pub(crate) fn finish(self) -> Result<(), BlobError> {
        if self.length < self.wanted.size {
            return Err(BlobError::Truncated { wanted: self.wanted, received: self.length });
        }
        let found = Digest::from_bytes(self.hash.clone().finalize().into());
        if found != self.wanted.digest {
            self.throw_away()?;
            return Err(BlobError::WrongDigest { wanted: self.wanted, found });
        }
        self.file.sync_all().map_err(|source| io_error(&self.path, source))?;
        fs::rename(&self.path, &self.target).map_err(|source| io_error(&self.target, source))?;
        let folder = self.target.parent().unwrap_or(Path::new("."));
        sync_folder(folder).map_err(|source| io_error(folder, source))
    }

    fn throw_away(&self) -> Result<(), BlobError> {
        self.file.set_len(0).map_err(|source| io_error(&self.path, source))?;
        fs::remove_file(&self.path).map_err(|source| io_error(&self.path, source))
    }
}

fn io_error(path: &Path, source: io::Error) -> BlobError {
    BlobError::Io { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, ImageStore) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let store = ImageStore::open(dir.path().join("images")).expect("a store");
        (dir, store)
    }

    fn blob(content: &[u8]) -> BlobRef {
        BlobRef { digest: Digest::of(content), size: content.len() as u64 }
    }

    #[test]
    fn a_blob_that_broke_off_goes_on_where_it_stopped() {
        let (_dir, store) = store();
        let wanted = blob(b"hello world");
        let mut first = store.receive(wanted).expect("begun");
        first.write(b"hello ").expect("taken");
        let error = first.finish().expect_err("it is not whole");
        assert!(matches!(error, BlobError::Truncated { received: 6, .. }), "{error}");
        assert!(!store.has(wanted), "a part is not the blob");

        let mut second = store.receive(wanted).expect("begun again");
        assert_eq!(second.offset(), 6);
        second.write(b"world").expect("taken");
        second.finish().expect("whole");
        assert!(store.has(wanted));
    }

    #[test]
    fn wrong_bytes_are_refused_and_not_kept() {
        let (_dir, store) = store();
        let wanted = blob(b"hello");
        let mut wrong = store.receive(wanted).expect("begun");
        wrong.write(b"hellO").expect("taken");
        let error = wrong.finish().expect_err("the content is wrong");
        assert!(
            matches!(error, BlobError::WrongDigest { found, .. } if found == Digest::of(b"hellO")),
            "{error}"
        );
        assert!(!store.has(wanted));
        assert_eq!(store.receive(wanted).expect("begun again").offset(), 0, "nothing wrong is resumed");
    }

    #[test]
    fn a_wrong_first_part_is_found_at_the_end_and_the_next_try_begins_anew() {
        let (_dir, store) = store();
        let wanted = blob(b"hello world");
        let mut first = store.receive(wanted).expect("begun");
        first.write(b"HELLO ").expect("taken");
        drop(first);
        let mut second = store.receive(wanted).expect("begun again");
        second.write(b"world").expect("taken");
        assert!(matches!(second.finish(), Err(BlobError::WrongDigest { .. })));
        let mut third = store.receive(wanted).expect("begun again");
        assert_eq!(third.offset(), 0);
        third.write(b"hello world").expect("taken");
        third.finish().expect("whole");
        assert!(store.has(wanted));
    }

    #[test]
    fn more_bytes_than_the_blob_has_are_refused() {
        let (_dir, store) = store();
        let wanted = blob(b"hello");
        let mut long = store.receive(wanted).expect("begun");
        assert!(matches!(long.write(b"hello!"), Err(BlobError::TooLong { .. })));
        assert_eq!(store.receive(wanted).expect("begun again").offset(), 0);
    }

    #[test]
    fn an_empty_blob_is_a_blob() {
        let (_dir, store) = store();
        let wanted = blob(b"");
        store.receive(wanted).expect("begun").finish().expect("whole");
        assert!(store.has(wanted));
    }

    #[test]
    fn an_index_is_bounded_and_reads_back() {
        let (_dir, store) = store();
        let manifest = Digest::of(b"manifest");
        assert!(store.index(manifest).expect("readable").is_none());
        store.put_index(manifest, b"{}").expect("kept");
        assert_eq!(store.index(manifest).expect("readable").as_deref(), Some(&b"{}"[..]));
        let long = vec![b' '; 2 << 20];
        assert!(matches!(store.put_index(manifest, &long), Err(BlobError::IndexTooLong { .. })));
    }
}
