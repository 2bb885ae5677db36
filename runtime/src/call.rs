//! Calls of the typed world `hvm:app`, as an embedder makes them: a name and bytes, and bytes or a failure back.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use http::StatusCode;

use crate::RequestError;
use crate::state::IdempotencyKey;

/// Longest name of a command or query.
pub(crate) const MAX_NAME_BYTES: usize = 255;

/// One call of a component's `hvm:app/handler`.
///
/// A `'static` name costs nothing; an owned one is copied once for each call, to be shown while it runs.
#[derive(Debug, Clone)]
pub struct Call {
    pub(crate) kind: CallKind,
    pub(crate) name: Cow<'static, str>,
    pub(crate) payload: Bytes,
    pub(crate) key: Option<IdempotencyKey>,
}

/// Whether a call may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CallKind {
    Command,
    Query,
}

impl Call {
    /// A call that may write state. On a stateless replica, which has none, it runs beside others as queries do.
    pub fn command(name: impl Into<Cow<'static, str>>, payload: impl Into<Bytes>) -> Self {
        Self { kind: CallKind::Command, name: name.into(), payload: payload.into(), key: None }
    }

    /// A call that only reads.
    pub fn query(name: impl Into<Cow<'static, str>>, payload: impl Into<Bytes>) -> Self {
        Self { kind: CallKind::Query, name: name.into(), payload: payload.into(), key: None }
    }

    /// Under one key a command is applied at most once; calling again returns the first answer. It means nothing for
    /// queries and on stateless replicas.
    #[must_use]
    pub fn with_idempotency_key(self, key: IdempotencyKey) -> Self {
        Self { key: Some(key), ..self }
    }
}

impl fmt::Display for CallKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Command => "command",
            Self::Query => "query",
        })
    }
}

/// The guest's own answer that it did not do what it was asked. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind}: {message}")]
pub struct Failure {
    /// What went wrong.
    pub kind: FailureKind,
    /// The guest's words.
    pub message: String,
}

/// What went wrong, by `failure-kind` of `hvm:app/handler`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// The name or the payload makes no sense.
    Invalid,
    /// The caller may not do this.
    Denied,
    /// What it is about does not exist.
    NotFound,
    /// The state does not allow it.
    Conflict,
    /// It may work later.
    Unavailable,
    /// The guest is at fault.
    Internal,
}

impl FailureKind {
    /// The HTTP status that says it.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        match self {
            Self::Invalid => StatusCode::BAD_REQUEST,
            Self::Denied => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Conflict => StatusCode::CONFLICT,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Invalid => "invalid",
            Self::Denied => "denied",
            Self::NotFound => "not found",
            Self::Conflict => "conflict",
            Self::Unavailable => "unavailable",
            Self::Internal => "internal",
        })
    }
}

/// Why a call has no answer. Unless the request error says otherwise, nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The guest says no.
    #[error("the guest failed it: {0}")]
    Failed(Failure),
    /// It was not answered by its guest.
    #[error(transparent)]
    Request(#[from] RequestError),
}
