//! What a partition is asked, from its acceptance to its answer.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Response, request};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Partition;
use crate::guest::Answered;
use crate::observed::{DoingGuard, Observed, Topic};
use crate::state::IdempotencyKey;
use crate::{Call, CallError, RequestBody, RequestError, ResponseBody};

/// Something asked that was accepted.
pub(super) struct Job {
    pub(super) asked: Asked,
    pub(super) is_command: bool,
    pub(super) key: Option<IdempotencyKey>,
    pub(super) deadline: Instant,
    pub(super) reply: Reply,
    pub(super) waiting: Waiting,
    pub(super) doing: DoingGuard,
    pub(super) _accepted: Accepted,
}

/// What is asked.
pub(super) enum Asked {
    Http { head: request::Parts, body: JobBody },
    Call(Call),
}

impl Asked {
    /// What of it may be shown.
    pub(super) fn topic(&self) -> Topic {
        match self {
            Self::Http { head, .. } => Topic::Http(head.method.clone(), head.uri.clone()),
            Self::Call(call) => Topic::Call(call.kind, call.name.clone()),
        }
    }
}

/// The body of a request.
pub(super) enum JobBody {
    /// It is read by the guest while it arrives.
    Arriving(RequestBody),
    /// It is here.
    Whole(Bytes),
}

/// Where the answer goes.
pub(crate) enum Reply {
    Http(oneshot::Sender<Result<Response<ResponseBody>, RequestError>>),
    Call(oneshot::Sender<Result<Bytes, CallError>>),
}

impl Reply {
    /// Answers that it has failed.
    pub(super) fn error(self, error: RequestError) {
        match self {
            Self::Http(reply) => drop(reply.send(Err(error))),
            Self::Call(reply) => drop(reply.send(Err(error.into()))),
        }
    }

    /// Answers a request. A call is told that it was mistaken for one.
    pub(super) fn response(self, response: Response<ResponseBody>) {
        match self {
            Self::Http(reply) => drop(reply.send(Ok(response))),
            reply @ Self::Call(_) => reply.error(mistaken()),
        }
    }

    /// Answers a call. A request is told that it was mistaken for one.
    pub(super) fn answered(self, answered: Answered) {
        match self {
            Self::Call(reply) => drop(reply.send(answered.map_err(CallError::Failed))),
            reply @ Self::Http(_) => reply.error(mistaken()),
        }
    }

    /// Whether nobody waits for it any more.
    pub(super) fn is_closed(&self) -> bool {
        match self {
            Self::Http(reply) => reply.is_closed(),
            Self::Call(reply) => reply.is_closed(),
        }
    }

    /// Ready when nobody waits for it any more.
    pub(super) fn poll_closed(&mut self, context: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Http(reply) => reply.poll_closed(context),
            Self::Call(reply) => reply.poll_closed(context),
        }
    }
}

fn mistaken() -> RequestError {
    RequestError::Internal { reason: "the answer has another form than what was asked".to_owned() }
}

/// Counts what was asked from its acceptance to its end.
pub(super) struct Accepted(Rc<Partition>);

impl Accepted {
    pub(super) fn new(partition: &Rc<Partition>) -> Self {
        partition.accepted.set(partition.accepted.get() + 1);
        Self(Rc::clone(partition))
    }
}

impl Drop for Accepted {
    fn drop(&mut self) {
        self.0.accepted.set(self.0.accepted.get() - 1);
        if self.0.accepted.get() == 0 && self.0.draining.get() {
            self.0.drained.notify_waiters();
        }
    }
}

/// Counts a request, and its body, while it waits for its turn.
pub(super) struct Waiting {
    observed: Arc<Observed>,
    bytes: u64,
}

impl Waiting {
    pub(super) fn new(observed: &Arc<Observed>) -> Self {
        observed.waiting.fetch_add(1, Relaxed);
        Self { observed: Arc::clone(observed), bytes: 0 }
    }

    /// Counts bytes of the body. False where too many wait already.
    pub(super) fn add(&mut self, bytes: u64, limit: u64) -> bool {
        if self.observed.waiting_bytes.load(Relaxed) + bytes > limit {
            return false;
        }
        self.observed.waiting_bytes.fetch_add(bytes, Relaxed);
        self.bytes += bytes;
        true
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.observed.waiting.fetch_sub(1, Relaxed);
        self.observed.waiting_bytes.fetch_sub(self.bytes, Relaxed);
    }
}
