//! Why a blob could not be taken or given.

use std::path::{Path, PathBuf};

use hvm_api::ErrorKind;
use hvm_types::Digest;

/// A failed operation on a blob.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BlobError {
    #[error("find blob {digest}: it is not here; send the image first (`hvm image push`)")]
    Missing { digest: Digest },
    #[error("take blob {digest}: its {size} bytes are more than {max_bytes}")]
    TooLarge { digest: Digest, size: u64, max_bytes: u64 },
    #[error("continue blob {digest} at {offset}: {have} bytes are here; ask again which are missing")]
    WrongOffset { digest: Digest, offset: u64, have: u64 },
    #[error("take blob {digest}: {received} bytes arrived, and it has {size}; continue there")]
    Incomplete { digest: Digest, received: u64, size: u64 },
    #[error("take blob {digest}: more than its {size} bytes arrived")]
    Overlong { digest: Digest, size: u64 },
    #[error("take blob {digest}: what arrived is {found}")]
    WrongDigest { digest: Digest, found: Digest },
    #[error("take blob {digest}: another client is sending it; wait for it to end")]
    Busy { digest: Digest },
    #[error("read {path}: its content is not what its name says; restore it from a copy", path = path.display())]
    Damaged { path: PathBuf },
    #[error("{operation} {path}", path = path.display())]
    Io { operation: &'static str, path: PathBuf, source: std::io::Error },
}

impl BlobError {
    pub(super) fn io(operation: &'static str, path: &Path, source: std::io::Error) -> Self {
        Self::Io { operation, path: path.to_owned(), source }
    }

    pub(crate) const fn kind(&self) -> ErrorKind {
        match self {
            Self::Missing { .. } => ErrorKind::NotFound,
            Self::TooLarge { .. } | Self::Overlong { .. } | Self::WrongDigest { .. } => ErrorKind::Invalid,
            Self::WrongOffset { .. } | Self::Busy { .. } => ErrorKind::Conflict,
            Self::Incomplete { .. } | Self::Io { .. } => ErrorKind::Unavailable,
            Self::Damaged { .. } => ErrorKind::Corrupt,
        }
    }
}
