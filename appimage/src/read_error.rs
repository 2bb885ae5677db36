//! Why bytes are not a readable AppImage.

use std::path::PathBuf;

use hvm_types::Digest;

/// Why an image can't be read. None of these is mended by trying again, except [`ReadError::Io`].
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The operating system refused.
    #[error("cannot read {}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What it said.
        source: std::io::Error,
    },
    /// The file is something else.
    #[error("this is not an AppImage: {reason}")]
    NotAnAppImage {
        /// What is wrong about it.
        reason: String,
    },
    /// The file is cut off.
    #[error("the file is truncated: it ends in {inside}; copy or download it again")]
    Truncated {
        /// What stands where it ends.
        inside: String,
    },
    /// A tar header, or the padding behind an entry, is not as `appimage-tool` writes it.
    #[error("the file is damaged at byte {offset}: {reason}")]
    Damaged {
        /// Where in the file.
        offset: u64,
        /// What is wrong there.
        reason: &'static str,
    },
    /// An entry that no AppImage has.
    #[error("entry `{name}` at byte {offset} is not allowed: {reason}")]
    ForbiddenEntry {
        /// Its name, escaped and cut to 120 characters.
        name: String,
        /// Where in the file.
        offset: u64,
        /// Why.
        reason: &'static str,
    },
    /// The same entry twice.
    #[error("entry `{name}` stands in the file twice")]
    DuplicateEntry {
        /// Its name.
        name: String,
    },
    /// Something exceeds its limit.
    #[error("{what} is too large: {found}, and {limit} is the most")]
    TooLarge {
        /// What.
        what: String,
        /// How much there is.
        found: u64,
        /// How much may be.
        limit: u64,
    },
    /// A JSON document can't be used.
    #[error("{what} is not valid: {reason}")]
    Document {
        /// Which document.
        what: String,
        /// What is wrong about it.
        reason: String,
    },
    /// A blob is not there.
    #[error("blob {digest} is missing")]
    MissingBlob {
        /// The blob.
        digest: Digest,
    },
    /// A blob is there that nothing names, so that no signature covers it.
    #[error("blob {digest} belongs to nothing in the image")]
    StrayBlob {
        /// The blob.
        digest: Digest,
    },
    /// A blob has another size than its descriptor says.
    #[error("blob {digest} has {found} bytes instead of {expected}")]
    SizeMismatch {
        /// The blob.
        digest: Digest,
        /// What its descriptor says.
        expected: u64,
        /// What it has.
        found: u64,
    },
    /// A blob's content is not what its name says.
    #[error("blob {expected} is damaged or was changed: its content has the digest {found}")]
    DigestMismatch {
        /// Its name.
        expected: Digest,
        /// The digest of its content.
        found: Digest,
    },
    /// The image has no such package, or the package no such file.
    #[error("the image has no {what}")]
    NotInImage {
        /// What was asked for.
        what: String,
    },
}
