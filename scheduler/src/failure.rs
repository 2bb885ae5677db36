//! Errors of the inside as failures that a caller sees: the kind, and the whole chain of causes as one line.

use std::error::Error;

use hvm_api::{ErrorKind, Failure};

use crate::blobs::BlobError;
use crate::documents::{DocumentError, LoadError};
use crate::store::StoreError;

/// `failed to …: why: why that`.
pub(crate) fn line_of(error: &dyn Error) -> String {
    let mut line = format!("failed to {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        line.push_str(": ");
        line.push_str(&error.to_string());
        cause = error.source();
    }
    line
}

/// An error with a kind becomes a failure.
pub(crate) trait IntoFailure {
    fn into_failure(self) -> Failure;
}

impl IntoFailure for StoreError {
    fn into_failure(self) -> Failure {
        Failure::new(self.kind(), line_of(&self))
    }
}

impl IntoFailure for DocumentError {
    fn into_failure(self) -> Failure {
        Failure::new(ErrorKind::Corrupt, line_of(&self))
    }
}

impl IntoFailure for LoadError {
    fn into_failure(self) -> Failure {
        match self {
            Self::Store(error) => error.into_failure(),
            Self::Document(error) => error.into_failure(),
        }
    }
}

impl IntoFailure for BlobError {
    fn into_failure(self) -> Failure {
        Failure::new(self.kind(), line_of(&self))
    }
}
