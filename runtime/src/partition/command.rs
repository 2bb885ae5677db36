//! A command: it runs alone, and its answer leaves when what it did is durable.
//!
//! The commit rule: a command writes to a buffer. If its handler ends and answers with a status below 400, the
//! buffer is committed in one record with idempotency key, answer and meter; only then the answer leaves. In
//! all other cases the buffer is dropped, and the instance with it: a guest's memory never outlives writes
//! that were not committed.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use http::Request;
use http_body_util::Full;
use hvm_types::{Digest, Meter, ReplicaState, RequestOutcome, Sequence};
use tokio::time::timeout_at;

use super::answer::{Answer, Form, Question};
use super::idempotency::Identity;
use super::job::Job;
use super::version::{Pool, Version};
use super::{Partition, idempotency, migrate, sequence};
use crate::RequestError;
use crate::capability::{Access, Effects, unix_millis};
use crate::guest::{InstanceHandle, answer_whole, discard};
use crate::progress::{Progress, Step};
use crate::state::{CommitError, CommitRecord, IdempotencyKey, PartitionState, ReadError, WriteSet};

/// What a guest made of a command.
pub(super) struct Outcome {
    pub(super) instance: InstanceHandle,
    pub(super) answer: Answer,
    pub(super) effects: Effects,
}

/// How a command became durable.
enum Committed {
    /// As this record.
    Now(Sequence),
    /// Its idempotency key had been applied: the answer of then.
    Before(Answer),
}

impl Partition {
    pub(super) async fn run_command(self: &Rc<Self>, job: Job) {
        let Job { asked, key, arrived, deadline, reply, waiting, doing, _accepted, .. } = job;
        drop(waiting);
        if reply.is_closed() {
            // Whoever asked is gone, and nothing has happened yet.
            self.observed.meter.count(RequestOutcome::Refused);
            doing.ended(RequestOutcome::Refused, None);
            return;
        }
        let answered = self.command(&doing, Question::of(asked), key, deadline).await;
        self.observed.latency.add(arrived.elapsed());
        match answered {
            Ok(answer) => {
                let outcome = answer.outcome();
                self.observed.meter.count(outcome);
                doing.ended(outcome, answer.status());
                answer.send(reply);
            }
            Err(error) => self.answer_error(Some(&doing), reply, error),
        }
    }

    async fn command(
        self: &Rc<Self>,
        progress: &Arc<Progress>,
        question: Question,
        key: Option<IdempotencyKey>,
        deadline: tokio::time::Instant,
    ) -> Result<Answer, RequestError> {
        let version = self.version();
        let limit = version.spec.resources.deadline.0;
        if tokio::time::Instant::now() >= deadline {
            return Err(RequestError::Deadline { limit });
        }
        let Some(state) = &version.state else {
            return Err(RequestError::Internal { reason: "a command without state".to_owned() });
        };
        let request = Identity { digest: self.digest(&version, &question, key.is_some()).await, key };
        if let Some(answer) = self.replay(state, &request, question.form())? {
            return Ok(answer);
        }
        let outcome = {
            progress.in_guest.begins(Instant::now());
            progress.set(Step::Guest);
            let mut running = Box::pin(self.run_in_guest(progress, &version, question, deadline));
            let running = self.cpu.throttled(Some(progress), running.as_mut());
            let outcome = timeout_at(deadline, running).await;
            self.observed.meter.add_wall(progress.in_guest.time(Instant::now()));
            outcome.map_err(|_| RequestError::Deadline { limit })??
        };
        let Outcome { instance, mut answer, effects } = outcome;
        let sequence = if answer.is_rejection() {
            // The writes go, and so does the instance that made them.
            drop(instance);
            self.seen(state, &effects)?
        } else if effects.writes.is_empty() && request.key.is_none() {
            version.check_in(&self.host, Pool::Command, instance, Instant::now());
            self.seen(state, &effects)?
        } else {
            progress.set(Step::Commit);
            match self.commit(&version, state, &effects, &request, &answer).await? {
                Committed::Now(sequence) => {
                    version.check_in(&self.host, Pool::Command, instance, Instant::now());
                    sequence
                }
                Committed::Before(answered) => return Ok(answered),
            }
        };
        answer.saw(sequence);
        self.observed.meter.count_sent(answer.bytes());
        Ok(answer)
    }

    /// The request's digest, where it is needed.
    async fn digest(&self, version: &Version, question: &Question, has_key: bool) -> Option<Digest> {
        let needed = has_key || version.retention.history.is_some();
        if needed { Some(idempotency::digest(question).await) } else { None }
    }

    /// The last record that a command saw which made none. No other was committed while it ran.
    fn seen(&self, state: &Arc<dyn PartitionState>, effects: &Effects) -> Result<Sequence, RequestError> {
        match effects.seen {
            Some(seen) => Ok(seen),
            None => state.sequence().map_err(|error| self.read_error(&error)),
        }
    }

    fn replay(
        &self,
        state: &Arc<dyn PartitionState>,
        request: &Identity,
        form: Form,
    ) -> Result<Option<Answer>, RequestError> {
        let Identity { digest: Some(digest), key: Some(key) } = request else { return Ok(None) };
        let stored = state.answer(key).map_err(|error| self.read_error(&error))?;
        stored.map(|stored| idempotency::replay(stored, *digest, form)).transpose()
    }

    pub(super) async fn run_in_guest(
        &self,
        progress: &Arc<Progress>,
        version: &Version,
        question: Question,
        until: tokio::time::Instant,
    ) -> Result<Outcome, RequestError> {
        let mut instance =
            version.check_out(&self.host, &self.observed, progress, Pool::Command, until).await?;
        instance.begin(Access::Command, progress, until);
        let answered = match question {
            Question::Http(head, body) => {
                let request = Request::from_parts(head, Full::new(body));
                let limit = version.spec.resources.response_body;
                answer_whole(&mut instance, request, limit).await.map(|(mut head, body)| {
                    sequence::strip(&mut head.headers);
                    Answer::Http(head, body)
                })
            }
            Question::Call(call) => {
                instance.call(call.kind, &call.name, &call.payload).await.map(Answer::Call)
            }
        };
        let effects = instance.end();
        let answer = match answered {
            Ok(answer) => answer,
            Err(error) => {
                discard(instance);
                return Err(error);
            }
        };
        if let Some(error) = &effects.broken {
            return Err(self.read_error(error));
        }
        Ok(Outcome { instance, answer, effects })
    }

    /// Makes a command durable. Where its idempotency key turns out to be applied already, the answer of then.
    async fn commit(
        &self,
        version: &Version,
        state: &Arc<dyn PartitionState>,
        effects: &Effects,
        request: &Identity,
        answer: &Answer,
    ) -> Result<Committed, RequestError> {
        let written = effects.writes.bytes() as u64;
        let meter = self.observed.read_meter();
        let record = CommitRecord {
            writes: effects.writes.clone(),
            idempotency: request.entry(answer),
            exchange: request.exchange(answer),
            schema: migrate::first_mark(&version.spec, &**state),
            ..self.record(version, &meter)
        };
        match state.commit(record).await {
            Ok(sequence) => {
                self.committed_meter.replace(meter);
                self.observed.meter.count_state(0, written);
                self.observed.set_committed(sequence, state.stored_bytes().ok());
                self.changed.notify_waiters();
                Ok(Committed::Now(sequence))
            }
            Err(CommitError::AlreadyApplied) => {
                let lost = || RequestError::StateUnavailable { reason: "a stored answer is gone".to_owned() };
                self.replay(state, request, answer.form())?.ok_or_else(lost).map(Committed::Before)
            }
            Err(error) => Err(self.commit_error(error)),
        }
    }

    /// A record of a version without writes, up to this meter.
    pub(super) fn record(&self, version: &Version, meter: &Meter) -> CommitRecord {
        CommitRecord {
            writes: WriteSet::default(),
            idempotency: None,
            exchange: None,
            schema: None,
            meter: meter.saturating_sub(&self.committed_meter.borrow()),
            quota: version.spec.resources.storage,
            retention: version.retention,
            unix_millis: unix_millis(),
        }
    }

    pub(super) fn commit_error(&self, error: CommitError) -> RequestError {
        let refused = self.refused(error);
        // It may be fenced or failed now.
        self.changed.notify_waiters();
        refused
    }

    fn refused(&self, error: CommitError) -> RequestError {
        match error {
            CommitError::Fenced { newest } => {
                self.host.count_fenced_commit();
                tracing::warn!(id = %self.observed.id, %newest, "a late commit was refused: another host owns the partition");
                self.observed.set_state(ReplicaState::Fenced { epoch: newest });
                RequestError::Fenced { epoch: newest }
            }
            CommitError::StorageFull { free, needed } => RequestError::StorageFull { free, needed },
            CommitError::QuotaExceeded { limit, .. } => RequestError::QuotaExceeded { limit },
            CommitError::TooLarge { what, bytes, limit } => {
                RequestError::WritesTooLarge { what, bytes, limit }
            }
            CommitError::Busy { .. } => RequestError::CommitBusy,
            CommitError::Unavailable { reason } => RequestError::CommitUnavailable { reason },
            CommitError::AlreadyApplied => RequestError::IdempotencyMismatch,
            error @ (CommitError::Removed | CommitError::Corrupt { .. }) => {
                self.observed.set_state(ReplicaState::Failed { reason: error.to_string() });
                RequestError::StateUnavailable { reason: error.to_string() }
            }
        }
    }

    /// What failing to read state means for the request, after the partition took note of it.
    pub(super) fn read_error(&self, error: &ReadError) -> RequestError {
        self.note_read_error(error);
        match error {
            ReadError::Fenced { newest } => RequestError::Fenced { epoch: *newest },
            error => RequestError::StateUnavailable { reason: error.to_string() },
        }
    }
}
