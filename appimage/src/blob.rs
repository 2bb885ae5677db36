//! Blobs by digest, and where they come from.

use std::fmt;
use std::io::Read;

use hvm_types::Digest;
use sha2::{Digest as _, Sha256};

use crate::read_error::ReadError;

/// Where the blobs of an image are: an `.aimg` file ([`crate::TarSource`]) or a directory
/// ([`crate::DirSource`]). A source is not trusted: whoever reads a blob checks its size and digest.
pub trait BlobSource: Send + Sync + fmt::Debug {
    /// The bytes of `index.json`, at most [`crate::MAX_INDEX_BYTES`].
    ///
    /// # Errors
    /// Where it is missing, too large or unreadable.
    fn index(&self) -> Result<Vec<u8>, ReadError>;

    /// Opens a blob.
    ///
    /// # Errors
    /// [`ReadError::MissingBlob`], or [`ReadError::Io`].
    fn blob(&self, digest: Digest) -> Result<Blob<'_>, ReadError>;

    /// All blobs, where the source holds one image and must hold nothing else; `None` where it is shared by
    /// many.
    fn all_blobs(&self) -> Option<Vec<Digest>>;
}

/// A blob that was opened.
pub struct Blob<'a> {
    /// How many bytes the source has of it.
    pub size: u64,
    /// The bytes, not checked.
    pub reader: Box<dyn Read + 'a>,
}

/// What a manifest says of a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobDescriptor {
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// What it is.
    pub media_type: String,
}

impl BlobDescriptor {
    /// Describes these bytes.
    pub(crate) fn of(media_type: &str, bytes: &[u8]) -> Self {
        Self { digest: Digest::of(bytes), size: bytes.len() as u64, media_type: media_type.to_owned() }
    }

    /// Reads the blob whole and checks it. `what` names it where it exceeds `limit`.
    pub(crate) fn read(&self, source: &dyn BlobSource, what: &str, limit: u64) -> Result<Vec<u8>, ReadError> {
        self.check_limit(what, limit)?;
        let mut bytes = Vec::with_capacity(usize::try_from(self.size).unwrap_or_default());
        self.copy(source, &mut |chunk| bytes.extend_from_slice(chunk))?;
        Ok(bytes)
    }

    /// Refuses a blob that says itself that it is too large.
    pub(crate) fn check_limit(&self, what: &str, limit: u64) -> Result<(), ReadError> {
        if self.size > limit {
            return Err(ReadError::TooLarge { what: what.to_owned(), found: self.size, limit });
        }
        Ok(())
    }

    /// Reads the blob in pieces and checks size and digest; what `take` was given counts only where this
    /// returns without error.
    pub(crate) fn copy(&self, source: &dyn BlobSource, take: &mut dyn FnMut(&[u8])) -> Result<(), ReadError> {
        let blob = source.blob(self.digest)?;
        let wrong_size = |found| ReadError::SizeMismatch { digest: self.digest, expected: self.size, found };
        if blob.size != self.size {
            return Err(wrong_size(blob.size));
        }
        let mut reader = blob.reader.take(self.size + 1);
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 64 << 10];
        let mut found = 0;
        loop {
            let count = reader
                .read(&mut buffer)
                .map_err(|source| ReadError::Io { path: format!("blob {}", self.digest).into(), source })?;
            if count == 0 {
                break;
            }
            found += count as u64;
            hash.update(&buffer[..count]);
            take(&buffer[..count]);
        }
        if found != self.size {
            return Err(wrong_size(found));
        }
        let found = Digest::from_bytes(hash.finalize().into());
        if found != self.digest {
            return Err(ReadError::DigestMismatch { expected: self.digest, found });
        }
        Ok(())
    }
}
