//! A query, or any request of a stateless replica: it runs beside others, on an instance of its own, and its
//! answer leaves as the guest produces it.

use std::cell::{Cell, RefCell};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, request};
use http_body::{Body, Frame, SizeHint};
use hvm_types::{ByteSize, RequestOutcome, Sequence};
use tokio::time::{Instant, timeout_at};
use wasmtime_wasi_http::Error;
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;

use super::job::{Asked, Job, JobBody, Reply};
use super::version::{Pool, Version};
use super::{Partition, sequence};
use crate::capability::Access;
use crate::guest::{InstanceHandle, discard, stream_answer};
use crate::meter::MeterCell;
use crate::progress::{Progress, Step};
use crate::stream::{self, AnswerEnd};
use crate::worker::spawn_here;
use crate::{RequestBody, RequestError, ResponseBody};

/// How long the rest of an answer is kept of which nothing is read.
const UNREAD_PATIENCE: Duration = Duration::from_secs(30);

/// Who asked: waiting for the answer's head first, then reading its body.
struct Asker {
    reply: RefCell<Option<Reply>>,
    answer: RefCell<Option<AnswerEnd>>,
    /// The status that the guest answered with.
    status: Cell<u16>,
}

impl Asker {
    const fn new(reply: Reply) -> Self {
        Self { reply: RefCell::new(Some(reply)), answer: RefCell::new(None), status: Cell::new(0) }
    }

    /// Hands the answer out as its guest produces it, which saw this record last.
    fn give(&self, response: Response<HyperOutgoingBody>, seen: Option<Sequence>, meter: &Arc<MeterCell>) {
        self.status.set(response.status().as_u16());
        let (mut head, frames) = response.into_parts();
        sequence::strip(&mut head.headers);
        if let Some(seen) = seen {
            sequence::put(&mut head.headers, seen);
        }
        let (reader, end) = stream::answer(frames, Arc::clone(meter));
        self.answer.replace(Some(end));
        if let Some(reply) = self.reply.take() {
            reply.response(Response::from_parts(head, ResponseBody::stream(reader)));
        }
    }

    /// Resolves when nobody waits or reads any more.
    async fn gone(&self) {
        std::future::poll_fn(|context| match self.reply.borrow_mut().as_mut() {
            Some(reply) => reply.poll_closed(context),
            None => match self.answer.borrow().as_ref() {
                Some(end) => end.poll_unread(context),
                None => Poll::Pending,
            },
        })
        .await;
    }
}

impl Partition {
    pub(super) async fn run_query(self: &Rc<Self>, job: Job) {
        let Job { asked, arrived, deadline, reply, waiting, doing, _accepted, .. } = job;
        drop(waiting);
        let Asked::Http { head, body } = asked else { return };
        let version = self.version();
        let asker = Asker::new(reply);
        let began = Instant::now();
        doing.in_guest.begins(began.into_std());
        let result = {
            doing.set(Step::Guest);
            let limit = version.spec.resources.deadline.0;
            // One that waited for too long never starts.
            let running = pin!(async {
                if began >= deadline {
                    return Err(RequestError::Deadline { limit });
                }
                self.query(&doing, &version, head, body, &asker, deadline).await
            });
            tokio::select! {
                biased;
                result = timeout_at(deadline, self.cpu.throttled(Some(&doing), running)) => {
                    result.unwrap_or(Err(RequestError::Deadline { limit }))
                }
                () = asker.gone() => Err(RequestError::BodyBroken { reason: "the asker is gone".to_owned() }),
            }
        };
        let ended = Instant::now();
        self.observed.meter.add_wall(doing.in_guest.time(ended.into_std()));
        self.observed.latency.add(ended - arrived);
        match result {
            Ok(instance) => {
                if self.end_query(&doing, &asker, Ok(())) {
                    version.check_in(&self.host, Pool::Query, instance, ended.into_std());
                }
            }
            Err(error) => {
                self.end_query(&doing, &asker, Err(error));
            }
        }
    }

    async fn query(
        &self,
        progress: &Arc<Progress>,
        version: &Version,
        head: request::Parts,
        body: JobBody,
        asker: &Asker,
        deadline: Instant,
    ) -> Result<InstanceHandle, RequestError> {
        let mut instance =
            version.check_out(&self.host, &self.observed, progress, Pool::Query, deadline).await?;
        let access = if version.spec.stateful { Access::Query } else { Access::None };
        instance.begin(access, progress, deadline);
        let seen = match instance.look() {
            Ok(seen) => seen,
            Err(error) => {
                instance.end();
                return Err(self.read_error(&error));
            }
        };
        let limit = version.spec.resources.request_body;
        let body = GuestBody::new(body, limit, Arc::clone(&self.observed.meter));
        let answered = stream_answer(&mut instance, Request::from_parts(head, body), |response| {
            asker.give(response, seen, &self.observed.meter);
        })
        .await;
        let effects = instance.end();
        if let Err(error) = answered {
            discard(instance);
            return Err(error);
        }
        if let Some(error) = &effects.broken {
            return Err(self.read_error(error));
        }
        Ok(instance)
    }

    /// Counts how a query ended and lets whoever asked know. True where the answer is whole.
    fn end_query(&self, progress: &Progress, asker: &Asker, guest: Result<(), RequestError>) -> bool {
        let Some(answer) = asker.answer.take() else {
            let error = guest.err().unwrap_or(RequestError::NoResponse);
            match asker.reply.take() {
                Some(reply) => self.answer_error(Some(progress), reply, error),
                None => {
                    self.observed.meter.count(error.outcome());
                    progress.ended(error.outcome(), None);
                }
            }
            return false;
        };
        let note = |end: &Result<(), RequestError>| match end {
            Ok(()) => {
                let status = asker.status.get();
                let outcome = RequestOutcome::of_status(status);
                self.observed.meter.count(outcome);
                progress.ended(outcome, Some(status));
            }
            Err(error) => self.count_error(Some(progress), error),
        };
        let is_whole = answer.finish(guest, note).is_ok();
        if let Some(unread) = answer.unread() {
            spawn_here(unread.expire(UNREAD_PATIENCE));
        }
        is_whole
    }
}

/// A request's body as a guest reads it: counted, and cut off with an error where it is too long.
struct GuestBody {
    body: RequestBody,
    left: u64,
    limit: ByteSize,
    meter: Arc<MeterCell>,
}

impl GuestBody {
    fn new(body: JobBody, limit: ByteSize, meter: Arc<MeterCell>) -> Self {
        let body = match body {
            JobBody::Arriving(body) => body,
            JobBody::Whole(bytes) => bytes.into(),
        };
        Self { body, left: limit.0, limit, meter }
    }
}

impl Body for GuestBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let frame = match std::task::ready!(Pin::new(&mut self.body).poll_frame(context)) {
            None => return Poll::Ready(None),
            Some(Err(error)) => {
                return Poll::Ready(Some(Err(Error::InternalError(Some(error.to_string())))));
            }
            Some(Ok(frame)) => frame,
        };
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        self.meter.count_received(bytes);
        match self.left.checked_sub(bytes as u64) {
            Some(left) => self.left = left,
            None => return Poll::Ready(Some(Err(Error::HttpRequestBodySize(Some(self.limit.0))))),
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
