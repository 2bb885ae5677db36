//! What a failed write means: whether the database can be opened again, and when.

use std::io;
use std::time::{Duration, Instant};

use super::store::io_error;

/// Least time between two attempts to recover.
const RECOVERY_PAUSE: Duration = Duration::from_millis(500);

/// Why a batch was not written.
#[derive(Debug)]
pub(super) enum WriteFailure {
    /// The disk is full: everything acknowledged was synced before, so the database can be opened again.
    Full(io::Error),
    /// A worker of the database failed and stopped it. Workers only rewrite what was synced before, so the
    /// database can be opened again.
    Worker,
    /// The journal could not be written or synced. What the page cache shows may not be on the disk, so only
    /// a restart, which reads again, may go on.
    Broken(String),
    /// The workers did not make room in time. Nothing was written; later writes may pass.
    Stalled,
}

impl From<fjall::Error> for WriteFailure {
    fn from(error: fjall::Error) -> Self {
        if matches!(error, fjall::Error::Poisoned) {
            return Self::Worker;
        }
        match io_error(error) {
            Ok(source) if is_full(&source) => Self::Full(source),
            Ok(source) => Self::Broken(source.to_string()),
            Err(error) => Self::Broken(error.to_string()),
        }
    }
}

/// Why a recovery did not succeed.
pub(super) enum Setback {
    /// It may the next time.
    Later(String),
    /// It can't.
    Forever(String),
}

pub(super) fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

/// The state of an engine after a failed write.
#[derive(Debug)]
pub(super) struct Failure {
    /// For people.
    pub(super) reason: String,
    /// Whether the disk was full.
    pub(super) full: bool,
    recoverable: bool,
    last_attempt: Option<Instant>,
}

impl Failure {
    /// The failure that a write leaves behind, if it leaves one.
    pub(super) fn of(failure: WriteFailure) -> Option<Self> {
        let failed = |reason, full, recoverable| Some(Self { reason, full, recoverable, last_attempt: None });
        match failure {
            WriteFailure::Full(source) => failed(format!("the disk is full: {source}"), true, true),
            WriteFailure::Worker => {
                failed("the database's background work failed; it is opened again".to_owned(), false, true)
            }
            WriteFailure::Broken(reason) => failed(
                format!("writing the journal failed, restart the host's agent: {reason}"),
                false,
                false,
            ),
            WriteFailure::Stalled => None,
        }
    }

    /// A failure that only a restart ends.
    pub(super) fn forever(reason: String) -> Self {
        Self { reason, full: false, recoverable: false, last_attempt: None }
    }

    /// Whether to try to recover now. It paces the attempts and decides nothing else.
    pub(super) fn may_recover(&mut self) -> bool {
        let rested = self.last_attempt.is_none_or(|attempt| attempt.elapsed() >= RECOVERY_PAUSE);
        let now = self.recoverable && rested;
        if now {
            self.last_attempt = Some(Instant::now());
        }
        now
    }
}
