//! Taking a request in: what is refused before anything runs, and reading the body of a command.
//!
//! A command's body is read before the command takes its turn, so that a slow sender holds up nobody but
//! itself.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, HOST};
use http::{HeaderMap, HeaderValue, Method, Request, Response, request};
use http_body_util::BodyExt as _;
use hvm_types::{ByteSize, ReplicaId, ReplicaState};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::Partition;
use super::pinned::Work;
use crate::observed::Observed;
use crate::state::IdempotencyKey;
use crate::worker::{Local, Slot};
use crate::{RequestBody, RequestError, ResponseBody};

/// Where a request's answer goes.
pub(crate) type Reply = oneshot::Sender<Result<Response<ResponseBody>, RequestError>>;

/// A request that was accepted.
pub(super) struct Job {
    pub(super) head: request::Parts,
    pub(super) body: JobBody,
    pub(super) is_command: bool,
    pub(super) key: Option<IdempotencyKey>,
    pub(super) deadline: Instant,
    pub(super) reply: Reply,
    pub(super) waiting: Waiting,
    pub(super) _accepted: Accepted,
}

/// The body of a request.
pub(super) enum JobBody {
    /// It is read by the guest while it arrives.
    Arriving(RequestBody),
    /// It is here.
    Whole(Bytes),
}

/// Counts a request from its acceptance to its end.
pub(super) struct Accepted(Rc<Partition>);

impl Drop for Accepted {
    fn drop(&mut self) {
        self.0.accepted.set(self.0.accepted.get() - 1);
        if self.0.accepted.get() == 0 {
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
    fn new(observed: &Arc<Observed>) -> Self {
        observed.waiting.fetch_add(1, Relaxed);
        Self { observed: Arc::clone(observed), bytes: 0 }
    }

    /// Counts bytes of the body. False where too many wait already.
    fn add(&mut self, bytes: u64, limit: u64) -> bool {
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

/// Takes a request in, or answers at once why not.
pub(crate) fn accept(local: &Rc<Local>, id: &ReplicaId, request: Request<RequestBody>, reply: Reply) {
    let not_ready =
        |state: &ReplicaState| RequestError::NotReady { id: id.clone(), state: state.to_string() };
    let partition = match local.partition(id) {
        Some(Slot::Open(partition)) => partition,
        Some(Slot::Opening) => {
            drop(reply.send(Err(not_ready(&ReplicaState::Recovering))));
            return;
        }
        None => {
            drop(reply.send(Err(RequestError::Unknown { id: id.clone() })));
            return;
        }
    };
    match partition.admit(request) {
        Ok(admitted) => partition.take_in(admitted, reply),
        Err(error) => partition.answer_error(reply, error),
    }
}

/// A request that passed the checks.
struct Admitted {
    head: request::Parts,
    body: RequestBody,
    is_command: bool,
    key: Option<IdempotencyKey>,
}

impl Partition {
    fn admit(&self, request: Request<RequestBody>) -> Result<Admitted, RequestError> {
        let version = self.version();
        let limits = &version.spec.resources;
        match self.observed.state() {
            ReplicaState::Ready => {}
            ReplicaState::Fenced { epoch } => return Err(RequestError::Fenced { epoch }),
            state => {
                return Err(RequestError::NotReady {
                    id: self.observed.id.clone(),
                    state: state.to_string(),
                });
            }
        }
        if self.waiting() >= limits.mailbox {
            return Err(RequestError::MailboxFull { id: self.observed.id.clone(), limit: limits.mailbox });
        }
        let (mut head, body) = request.into_parts();
        if content_length(&head.headers).is_some_and(|length| length > limits.request_body.0) {
            return Err(RequestError::BodyTooLarge { limit: limits.request_body });
        }
        if head.uri.authority().is_none() {
            check_host(&mut head.headers)?;
        }
        let is_command =
            version.spec.stateful && !matches!(head.method, Method::GET | Method::HEAD | Method::OPTIONS);
        let key = if is_command { idempotency_key(&head.headers)? } else { None };
        Ok(Admitted { head, body, is_command, key })
    }

    fn take_in(self: &Rc<Self>, admitted: Admitted, reply: Reply) {
        let Admitted { head, body, is_command, key } = admitted;
        self.accepted.set(self.accepted.get() + 1);
        let job = Job {
            head,
            body: JobBody::Arriving(body),
            is_command,
            key,
            deadline: Instant::now() + self.version().spec.resources.deadline.0,
            reply,
            waiting: Waiting::new(&self.observed),
            _accepted: Accepted(Rc::clone(self)),
        };
        if is_command {
            let task = Rc::clone(self).read_then_run(job);
            crate::worker::spawn_here(self.slices.metered(&self.observed.meter, task));
        } else {
            self.queries.push(Work::Request(Box::new(job)));
            self.run_lane(|partition| &partition.queries);
        }
    }

    async fn read_then_run(self: Rc<Self>, mut job: Job) {
        if let JobBody::Arriving(body) = job.body {
            let limits = self.version().spec.resources.clone();
            // Bodies that wait are held by the host: a quarter of the partition's memory beside its guests,
            // and at least one whole body.
            let held = ByteSize((u64::from(limits.memory) << 18).max(limits.request_body.0));
            let reading = read_whole(body, limits.request_body, |bytes| {
                let full = RequestError::BodiesFull { id: self.observed.id.clone(), limit: held };
                if job.waiting.add(bytes, held.0) { Ok(()) } else { Err(full) }
            });
            let too_slow =
                || RequestError::BodyBroken { reason: "it took longer than the deadline".to_owned() };
            match timeout_at(job.deadline, reading).await.unwrap_or_else(|_| Err(too_slow())) {
                Ok(body) => {
                    self.observed.meter.count_received(body.len());
                    job.body = JobBody::Whole(body);
                }
                Err(error) => return self.answer_error(job.reply, error),
            }
        }
        self.commands.push(Work::Request(Box::new(job)));
        self.work_off(|partition| &partition.commands).await;
    }

    /// Answers a request that has failed.
    pub(super) fn answer_error(&self, reply: Reply, error: RequestError) {
        self.observed.meter.count(error.outcome());
        self.log_failure(&error);
        drop(reply.send(Err(error)));
    }

    /// Writes to the partition's log what its author should know of.
    pub(super) fn log_failure(&self, error: &RequestError) {
        if error.outcome() == hvm_types::RequestOutcome::Failed {
            self.log.host(crate::LogLevel::Error, &format!("a request failed: {error}"));
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
    let key = value.to_str().ok().and_then(|text| text.parse().ok());
    match (key, values.next()) {
        (Some(key), None) => Ok(Some(key)),
        _ => Err(RequestError::IdempotencyKeyInvalid),
    }
}

async fn read_whole(
    mut body: RequestBody,
    limit: ByteSize,
    mut hold: impl FnMut(u64) -> Result<(), RequestError>,
) -> Result<Bytes, RequestError> {
    let mut first: Option<Bytes> = None;
    let mut more = BytesMut::new();
    let mut read = 0_u64;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| RequestError::BodyBroken { reason: error.to_string() })?;
        let Ok(data) = frame.into_data() else { continue };
        read += data.len() as u64;
        if read > limit.0 {
            return Err(RequestError::BodyTooLarge { limit });
        }
        hold(data.len() as u64)?;
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
