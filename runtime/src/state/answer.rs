//! Idempotency: keys, the answers stored with them, and how long both are kept.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use hvm_types::{ByteSize, Digest, Sequence};

/// The value of a request's `Idempotency-Key`: 1 to 255 visible ASCII characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IdempotencyKey(String);

/// A text that can't be an idempotency key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("idempotency key of {bytes} bytes is not valid: use 1 to 255 visible ASCII characters")]
pub struct InvalidIdempotencyKey {
    /// Its length.
    pub bytes: usize,
}

impl IdempotencyKey {
    /// The key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for IdempotencyKey {
    type Err = InvalidIdempotencyKey;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let valid = (1..=255).contains(&text.len()) && text.bytes().all(|c| (0x20..0x7f).contains(&c));
        if valid { Ok(Self(text.to_owned())) } else { Err(InvalidIdempotencyKey { bytes: text.len() }) }
    }
}

impl fmt::Display for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The part of a record that makes its request idempotent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotency {
    /// The key.
    pub key: IdempotencyKey,
    /// The digest of the request, to tell a repetition from another request with the same key.
    pub request: Digest,
    /// The answer to give again.
    pub response: StoredResponse,
}

/// A request's digest and the answer that it got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    /// The digest of the request.
    pub request: Digest,
    /// Its answer.
    pub response: StoredResponse,
}

impl Idempotency {
    /// What it counts in the window.
    pub(crate) fn bytes(&self) -> u64 {
        (self.key.as_str().len() + self.response.bytes()) as u64
    }
}

/// A response as it was given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoredResponse {
    /// HTTP status.
    pub status: u16,
    /// Headers in their order.
    pub headers: Vec<(String, Bytes)>,
    /// The body, whose size the caller bounds.
    pub body: Bytes,
}

impl StoredResponse {
    pub(crate) fn bytes(&self) -> usize {
        self.body.len() + self.headers.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>()
    }
}

/// What was answered to a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredAnswer {
    /// The digest of the request.
    pub request: Digest,
    /// The record that applied it.
    pub sequence: Sequence,
    /// Its answer.
    pub response: StoredResponse,
}

/// How long answers are kept, per partition: the oldest go when one of the three is exceeded. A commit
/// removes a bounded number of them, so a narrowed window takes effect over many commits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdempotencyWindow {
    /// Most answers.
    pub answers: u64,
    /// Most bytes of keys and answers together.
    pub bytes: ByteSize,
    /// Longest age.
    pub age: Duration,
}

impl Default for IdempotencyWindow {
    fn default() -> Self {
        Self { answers: 10_000, bytes: ByteSize::mib(16), age: Duration::from_secs(24 * 60 * 60) }
    }
}
