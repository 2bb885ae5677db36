//! Taking a request in: what is refused before anything runs, and reading the body of a command.
//!
//! A command's body is read before the command takes its turn, so that a slow sender holds up nobody but
//! itself.

use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, HOST};
use http::{HeaderMap, HeaderValue, Method, Request};
use http_body_util::BodyExt as _;
use hvm_types::{ByteSize, ReplicaId, ReplicaState, Sequence};
use tokio::time::{Instant, timeout_at};

use super::job::{Accepted, Asked, Job, JobBody, Reply, Waiting};
use super::lane::Lane;
use super::pinned::Work;
use super::version::Version;
use super::{Partition, reserved, sequence};
use crate::memory::Charge;
use crate::progress::{Progress, Step};
use crate::state::IdempotencyKey;
use crate::trace_context::TraceContext;
use crate::worker::{Local, Slot};
use crate::{RequestBody, RequestError};

/// Where a request that need not wait begins to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// Within the task that asks: nothing is handed over.
    Here,
    /// In a task of its own.
    AsTask,
}

/// Takes a request in, or answers at once why not.
pub(crate) fn accept(
    local: &Rc<Local>,
    id: &ReplicaId,
    request: Request<RequestBody>,
    reply: Reply,
    start: Start,
) {
    match find(local, id) {
        Ok(partition) => match partition.admit(request) {
            Ok(admitted) => partition.take_in(admitted, reply, start),
            Err(error) => partition.answer_error(None, reply, error),
        },
        Err(error) => reply.error(error),
    }
}

/// The partition with this id, where it takes requests.
pub(super) fn find(local: &Local, id: &ReplicaId) -> Result<Rc<Partition>, RequestError> {
    match local.partition(id) {
        Some(Slot::Open(partition)) => Ok(partition),
        Some(Slot::Opening) => {
            Err(RequestError::NotReady { id: id.clone(), state: ReplicaState::Recovering.to_string() })
        }
        None => Err(RequestError::Unknown { id: id.clone() }),
    }
}

/// What passed the checks.
pub(super) struct Admitted {
    pub(super) asked: Asked,
    pub(super) is_command: bool,
    pub(super) key: Option<IdempotencyKey>,
    /// The record that must be committed before it runs.
    pub(super) at_least: Option<Sequence>,
    pub(super) trace: Option<TraceContext>,
}

impl Partition {
    /// Checks that the partition takes anything at all.
    pub(super) fn check_open(&self, version: &Version) -> Result<(), RequestError> {
        self.observed.check_ready()?;
        let limit = version.spec.resources.mailbox;
        if self.waiting() >= limit {
            return Err(RequestError::MailboxFull { id: self.observed.id.clone(), limit });
        }
        Ok(())
    }

    fn admit(&self, request: Request<RequestBody>) -> Result<Admitted, RequestError> {
        let version = self.version();
        self.check_open(&version)?;
        let limits = &version.spec.resources;
        let (mut head, body) = request.into_parts();
        reserved::check(head.uri.path())?;
        if content_length(&head.headers).is_some_and(|length| length > limits.request_body.0) {
            return Err(RequestError::BodyTooLarge { limit: limits.request_body });
        }
        if head.uri.authority().is_none() {
            check_host(&mut head.headers)?;
        }
        let is_command =
            version.spec.stateful && !matches!(head.method, Method::GET | Method::HEAD | Method::OPTIONS);
        let key = if is_command { idempotency_key(&head.headers)? } else { None };
        // It means nothing to a replica without state, whose guest may pass it on.
        let at_least = if version.spec.stateful { sequence::take_in(&mut head.headers)? } else { None };
        let trace = TraceContext::take_in(&mut head.headers);
        let asked = Asked::Http { head, body: JobBody::Arriving(body) };
        Ok(Admitted { asked, is_command, key, at_least, trace })
    }

    /// Lets it take its turn.
    pub(super) fn take_in(self: &Rc<Self>, admitted: Admitted, reply: Reply, start: Start) {
        let Admitted { mut asked, is_command, key, at_least, trace } = admitted;
        let now = Instant::now();
        let step = if is_command { Step::Body } else { Step::Turn };
        let doing = self.observed.begin(asked.topic(), trace, step, now.into_std());
        if doing.is_told()
            && let (Asked::Http { head, .. }, Some(own)) = (&mut asked, doing.trace())
        {
            own.put(&mut head.headers);
        }
        let mut job = Job {
            asked,
            is_command,
            key,
            deadline: now + self.version().spec.resources.deadline.0,
            reply,
            waiting: Waiting::new(&self.observed),
            arrived: now,
            doing,
            _accepted: Accepted::new(self),
        };
        if is_command || !self.has(at_least) {
            let task = Rc::clone(self).wait_then_run(job, at_least);
            crate::worker::spawn_here(self.slices.metered(&self.cpu, task));
        } else {
            if let Err(error) = self.hold_payload(&mut job) {
                return self.answer_error(Some(&job.doing), job.reply, error);
            }
            self.queries.push(Work::Request(Box::new(job)));
            match start {
                Start::Here => self.begin_lane(|partition| &partition.queries),
                Start::AsTask => self.run_lane(|partition| &partition.queries),
            }
        }
    }

    async fn wait_then_run(self: Rc<Self>, mut job: Job, at_least: Option<Sequence>) {
        if let Err(error) = self.wait(&mut job, at_least).await {
            return self.answer_error(Some(&job.doing), job.reply, error);
        }
        job.doing.set(Step::Turn);
        let lane: fn(&Self) -> &Lane<Work> =
            if job.is_command { |partition| &partition.commands } else { |partition| &partition.queries };
        lane(&self).push(Work::Request(Box::new(job)));
        self.work_off(lane).await;
    }

    /// Waits for what must be there before it runs: the record that it asks for; of a command, its body.
    async fn wait(&self, job: &mut Job, at_least: Option<Sequence>) -> Result<(), RequestError> {
        if let Some(at_least) = at_least {
            self.wait_for(at_least, job).await?;
            job.doing.set(Step::Body);
        }
        if job.is_command { self.read_body(job).await } else { self.hold_payload(job) }
    }

    /// Makes sure that the body of a command is here.
    async fn read_body(&self, job: &mut Job) -> Result<(), RequestError> {
        self.hold_payload(job)?;
        let Job { asked, waiting, deadline, .. } = job;
        let body = match asked {
            Asked::Http { body, .. } => body,
            Asked::Call(call) => {
                self.observed.meter.count_received(call.payload.len());
                return Ok(());
            }
        };
        let JobBody::Arriving(arriving) = std::mem::replace(body, JobBody::Whole(Bytes::new())) else {
            return Ok(());
        };
        let too_slow = || RequestError::BodyBroken { reason: "it took longer than the deadline".to_owned() };
        let limit = self.version().spec.resources.request_body;
        let mut charge = self.version().charge();
        // What came counts, whatever becomes of it.
        let hold = |bytes: usize| {
            self.observed.meter.count_received(bytes);
            self.hold(waiting, &mut charge, bytes as u64)
        };
        let reading = timeout_at(*deadline, read_whole(arriving, limit, hold));
        let whole = reading.await.unwrap_or_else(|_| Err(too_slow()))?;
        *body = JobBody::Whole(charge.keep(whole));
        Ok(())
    }

    /// Counts what a call brings while it waits.
    fn hold_payload(&self, job: &mut Job) -> Result<(), RequestError> {
        let Asked::Call(call) = &mut job.asked else { return Ok(()) };
        let mut charge = self.version().charge();
        self.hold(&mut job.waiting, &mut charge, call.payload.len() as u64)?;
        call.payload = charge.keep(std::mem::take(&mut call.payload));
        Ok(())
    }

    /// Bodies that wait are held by the host: no more than a quarter of the partition's memory, so that its guests can
    /// still run, but at least one whole body.
    fn hold(&self, waiting: &mut Waiting, charge: &mut Charge, bytes: u64) -> Result<(), RequestError> {
        let version = self.version();
        let limits = &version.spec.resources;
        let held = (u64::from(limits.memory) << 18).max(limits.request_body.0);
        if waiting.add(bytes, held) && charge.add(bytes).is_ok() {
            return Ok(());
        }
        Err(RequestError::BodiesFull { id: self.observed.id.clone(), limit: ByteSize(held) })
    }

    /// Answers a request that has failed.
    pub(super) fn answer_error(&self, progress: Option<&Progress>, reply: Reply, error: RequestError) {
        self.count_error(progress, &error);
        reply.error(error);
    }

    /// Counts what has failed, and writes to the partition's log what its author should know of.
    pub(super) fn count_error(&self, progress: Option<&Progress>, error: &RequestError) {
        self.observed.meter.count(error.outcome());
        if let Some(progress) = progress {
            progress.ended(error.outcome(), Some(error.status().as_u16()));
        }
        if error.outcome().is_failure() {
            let request = progress.map_or_else(|| "a request".to_owned(), ToString::to_string);
            self.log.host(crate::LogLevel::Error, &format!("{request} failed: {error}"));
        }
    }
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// A guest is always told an authority. Requests from within may have none.
fn check_host(headers: &mut HeaderMap) -> Result<(), RequestError> {
    match headers.get(HOST) {
        None => {
            headers.insert(HOST, HeaderValue::from_static("localhost"));
            Ok(())
        }
        Some(host) if host.to_str().is_ok() => Ok(()),
        Some(_) => Err(RequestError::Invalid { reason: "its `host` header is not ASCII".to_owned() }),
    }
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<IdempotencyKey>, RequestError> {
    let mut values = headers.get_all("idempotency-key").iter();
    let Some(value) = values.next() else { return Ok(None) };
    // A space in a key is somebody's fault more often than somebody's choice.
    let text = value.to_str().ok().filter(|text| !text.contains(' '));
    let key = text.and_then(|text| text.parse().ok());
    match (key, values.next()) {
        (Some(key), None) => Ok(Some(key)),
        _ => Err(RequestError::IdempotencyKeyInvalid),
    }
}

async fn read_whole(
    mut body: RequestBody,
    limit: ByteSize,
    mut hold: impl FnMut(usize) -> Result<(), RequestError>,
) -> Result<Bytes, RequestError> {
    let mut first: Option<Bytes> = None;
    let mut more = BytesMut::new();
    let mut read = 0_u64;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| RequestError::BodyBroken { reason: error.to_string() })?;
        let Ok(data) = frame.into_data() else { continue };
        read += data.len() as u64;
        let held = hold(data.len());
        if read > limit.0 {
            return Err(RequestError::BodyTooLarge { limit });
        }
        held?;
        match first.take() {
            None if more.is_empty() => first = Some(data),
            None => more.extend_from_slice(&data),
            Some(head) => {
                more.extend_from_slice(&head);
                more.extend_from_slice(&data);
            }
        }
    }
    Ok(first.unwrap_or_else(|| more.freeze()))
}
