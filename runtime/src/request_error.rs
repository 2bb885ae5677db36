//! Why a request was not answered by its guest, which HTTP status says so, and whether to try again.

use std::time::Duration;

use http::StatusCode;
use hvm_types::{ByteSize, Epoch, ReplicaId, RequestOutcome, Sequence};

/// Why a request was not answered by its guest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The partition does not run here.
    #[error("partition {id} does not run on this host")]
    Unknown {
        /// The partition.
        id: ReplicaId,
    },
    /// The partition does not serve now.
    #[error("partition {id} is {state}; try again")]
    NotReady {
        /// The partition.
        id: ReplicaId,
        /// Its state.
        state: String,
    },
    /// Too many requests wait.
    #[error("{limit} requests wait for partition {id}, which is its limit (`mailbox`); try again")]
    MailboxFull {
        /// The partition.
        id: ReplicaId,
        /// Most requests that may wait.
        limit: u32,
    },
    /// The bodies of waiting requests hold too much memory.
    #[error("request bodies waiting for partition {id} hold {limit}, which is its limit; try again")]
    BodiesFull {
        /// The partition.
        id: ReplicaId,
        /// Most bytes that may wait.
        limit: ByteSize,
    },
    /// All instances of the host are busy.
    #[error("the host runs as many instances as it may; try again")]
    HostFull,
    /// The request can't be passed to a guest.
    #[error("the request is not valid: {reason}")]
    Invalid {
        /// What is wrong with it.
        reason: String,
    },
    /// The component takes HTTP requests only.
    #[error("the component exports no `hvm:app/handler@0.1.0`: send it HTTP requests")]
    NoTypedHandler,
    /// It asks for what only the host may ask.
    #[error("what is below `/.well-known/hvm/` only the host may ask for")]
    Reserved,
    /// The sender broke off or was too slow.
    #[error("the request's body did not arrive: {reason}")]
    BodyBroken {
        /// What happened.
        reason: String,
    },
    /// The request's body is too long.
    #[error("the request's body is longer than {limit} (`request_body`)")]
    BodyTooLarge {
        /// The limit.
        limit: ByteSize,
    },
    /// The idempotency key has a wrong form.
    #[error("the idempotency key is not valid: use 1 to 255 visible ASCII characters, once")]
    IdempotencyKeyInvalid,
    /// The idempotency key belongs to another request.
    #[error("the idempotency key was used for a request with another method, path or body; use a new key")]
    IdempotencyMismatch,
    /// What a request asks for is no record.
    #[error("`hvm-at-least` is not valid: write the number of one record, as `hvm-sequence` gave it, once")]
    AtLeastInvalid,
    /// The record that a request asks for was not committed in time, or too many wait for one.
    #[error(
        "record {at_least} was asked for (`hvm-at-least`) and partition {id} has committed {committed}; nothing was \
         run, try again"
    )]
    Behind {
        /// The partition.
        id: ReplicaId,
        /// The record that was asked for.
        at_least: Sequence,
        /// The last one that is committed.
        committed: Sequence,
    },
    /// The host's disk is full.
    #[error("the host's disk is full ({free} free, {needed} needed); nothing was changed, reading goes on")]
    StorageFull {
        /// What is free.
        free: ByteSize,
        /// What must be free.
        needed: ByteSize,
    },
    /// The partition would hold more state than it may.
    #[error("the partition would hold more than {limit} (`storage`); nothing was changed")]
    QuotaExceeded {
        /// The limit.
        limit: ByteSize,
    },
    /// What a command wrote is more than one record takes.
    #[error("the command wrote {what} of {bytes} bytes, more than the {limit} that one commit takes")]
    WritesTooLarge {
        /// Which part.
        what: &'static str,
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// It was not done in time.
    #[error("it took longer than {limit:?} (`deadline`); nothing was changed")]
    Deadline {
        /// The limit.
        limit: Duration,
    },
    /// The guest was stopped.
    #[error("the guest was stopped: {trap}; nothing was changed")]
    Trapped {
        /// Why.
        trap: Trap,
    },
    /// The guest returned without an answer.
    #[error("the guest returned without a response; nothing was changed")]
    NoResponse,
    /// The guest returned an error instead of an answer.
    #[error("the guest answered with the error {code}; nothing was changed")]
    GuestError {
        /// The error's name in `wasi:http`.
        code: String,
    },
    /// The guest broke its answer off.
    #[error("the guest did not finish its response; nothing was changed")]
    ResponseIncomplete,
    /// The guest's answer is none that HTTP has.
    #[error("the guest's response is not valid: {reason}; nothing was changed")]
    ResponseInvalid {
        /// What is wrong with it.
        reason: String,
    },
    /// Whoever asked did not read the answer.
    #[error("nothing of the response was read for {patience:?}")]
    ResponseUnread {
        /// How long it was kept.
        patience: Duration,
    },
    /// The answer of a command is too long.
    #[error("the response is longer than {limit} (`response_body`); nothing was changed")]
    ResponseTooLarge {
        /// The limit.
        limit: ByteSize,
    },
    /// Another host owns the partition.
    #[error("another host owns the partition since epoch {epoch}; try again")]
    Fenced {
        /// The newer epoch.
        epoch: Epoch,
    },
    /// It is unknown whether the command was applied.
    #[error(
        "the commit failed: {reason}; it is unknown whether it was applied: repeat it with the same \
         idempotency key"
    )]
    CommitUnavailable {
        /// Why.
        reason: String,
    },
    /// Too many commits wait; this one was not applied.
    #[error("too many commits wait for the disk; nothing was changed, try again")]
    CommitBusy,
    /// State could not be read.
    #[error("the partition's state can't be read: {reason}")]
    StateUnavailable {
        /// Why.
        reason: String,
    },
    /// A fault of the host.
    #[error("the host failed: {reason}")]
    Internal {
        /// What happened.
        reason: String,
    },
    /// The HVM is stopping.
    #[error("the host is stopping; try again")]
    Stopped,
}

/// Why a guest was stopped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Trap {
    /// It wanted more memory than it may have.
    #[error("it needs more memory than {limit} (`memory`)")]
    Memory {
        /// The limit.
        limit: ByteSize,
    },
    /// It wanted memory while the host had none left for partitions.
    #[error("the host's memory for partitions is used up")]
    HostMemory,
    /// It called itself too deep.
    #[error("it used up its stack")]
    Stack,
    /// It holds more handles of host resources than it may.
    #[error("it holds more host resources than {limit}")]
    Resources {
        /// The limit.
        limit: usize,
    },
    /// It asked the host for more in one call than it may.
    #[error("it passed more {what} in one call than {limit}")]
    Argument {
        /// Of what.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// It computed for too long while somebody waited for its core dump.
    #[error("it computed for too long, and was stopped for a core dump that somebody asked for")]
    Dumped,
    /// It ended itself.
    #[error("it called exit")]
    Exit,
    /// A WebAssembly trap, such as `unreachable`, which is how a panic ends.
    #[error("{reason}")]
    Wasm {
        /// The trap in words.
        reason: String,
    },
}

impl RequestError {
    /// The HTTP status that says it.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        match self {
            Self::Unknown { .. } => StatusCode::NOT_FOUND,
            Self::NotReady { .. }
            | Self::MailboxFull { .. }
            | Self::BodiesFull { .. }
            | Self::HostFull
            | Self::Behind { .. }
            | Self::Fenced { .. }
            | Self::CommitUnavailable { .. }
            | Self::CommitBusy
            | Self::StateUnavailable { .. }
            | Self::Stopped => StatusCode::SERVICE_UNAVAILABLE,
            Self::Invalid { .. }
            | Self::NoTypedHandler
            | Self::BodyBroken { .. }
            | Self::IdempotencyKeyInvalid
            | Self::AtLeastInvalid => StatusCode::BAD_REQUEST,
            Self::Reserved => StatusCode::FORBIDDEN,
            Self::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::IdempotencyMismatch => StatusCode::UNPROCESSABLE_ENTITY,
            Self::StorageFull { .. } | Self::QuotaExceeded { .. } => StatusCode::INSUFFICIENT_STORAGE,
            Self::Deadline { .. } | Self::Trapped { trap: Trap::Dumped } => StatusCode::GATEWAY_TIMEOUT,
            Self::WritesTooLarge { .. }
            | Self::Trapped { .. }
            | Self::NoResponse
            | Self::GuestError { .. }
            | Self::ResponseIncomplete
            | Self::ResponseInvalid { .. }
            | Self::ResponseUnread { .. }
            | Self::ResponseTooLarge { .. }
            | Self::Internal { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// When to try again, where that makes sense: the value of `Retry-After`.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::NotReady { .. }
            | Self::MailboxFull { .. }
            | Self::BodiesFull { .. }
            | Self::HostFull
            | Self::Behind { .. }
            | Self::Fenced { .. }
            | Self::CommitUnavailable { .. }
            | Self::CommitBusy
            | Self::StateUnavailable { .. }
            | Self::Stopped => Some(Duration::from_secs(1)),
            Self::StorageFull { .. } => Some(Duration::from_secs(30)),
            _ => None,
        }
    }

    /// How it counts.
    #[must_use]
    pub const fn outcome(&self) -> RequestOutcome {
        match self {
            Self::Unknown { .. }
            | Self::NotReady { .. }
            | Self::MailboxFull { .. }
            | Self::BodiesFull { .. }
            | Self::HostFull
            | Self::Invalid { .. }
            | Self::NoTypedHandler
            | Self::Reserved
            | Self::BodyBroken { .. }
            | Self::BodyTooLarge { .. }
            | Self::IdempotencyKeyInvalid
            | Self::IdempotencyMismatch
            | Self::AtLeastInvalid
            | Self::Behind { .. }
            | Self::Fenced { .. }
            | Self::StateUnavailable { .. }
            | Self::Stopped => RequestOutcome::Refused,
            Self::Deadline { .. } | Self::ResponseUnread { .. } | Self::Trapped { trap: Trap::Dumped } => {
                RequestOutcome::TimedOut
            }
            Self::Trapped { trap: Trap::Exit | Trap::Wasm { .. } } => RequestOutcome::Trapped,
            Self::Trapped {
                trap: Trap::Memory { .. } | Trap::Stack | Trap::Resources { .. } | Trap::Argument { .. },
            }
            | Self::ResponseTooLarge { .. }
            | Self::WritesTooLarge { .. }
            | Self::QuotaExceeded { .. } => RequestOutcome::Limited,
            Self::NoResponse
            | Self::GuestError { .. }
            | Self::ResponseIncomplete
            | Self::ResponseInvalid { .. } => RequestOutcome::Errored,
            Self::Trapped { trap: Trap::HostMemory }
            | Self::StorageFull { .. }
            | Self::CommitUnavailable { .. }
            | Self::CommitBusy
            | Self::Internal { .. } => RequestOutcome::Failed,
        }
    }
}
