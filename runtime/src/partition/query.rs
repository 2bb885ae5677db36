//! A query, or any request of a stateless replica: it runs beside others, on an instance of its own, and its
//! answer leaves as the guest produces it.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, request};
use http_body::{Body, Frame, SizeHint};
use hvm_types::{ByteSize, RequestOutcome};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};
use wasmtime_wasi_http::Error;

use super::Partition;
use super::accept::{Job, JobBody, Reply};
use super::version::{Pool, Version};
use crate::capability::Access;
use crate::guest::stream_answer;
use crate::meter::MeterCell;
use crate::{RequestBody, RequestError, ResponseBody};

/// The two places where somebody may still be waiting for a query: for its head, then for its body's end.
struct Asker {
    reply: RefCell<Option<Reply>>,
    end: RefCell<oneshot::Sender<Result<(), RequestError>>>,
    /// Given to the response's body.
    ended: RefCell<Option<oneshot::Receiver<Result<(), RequestError>>>>,
    /// Whether the guest answered with a status of 400 or above.
    rejected: Cell<bool>,
}

impl Asker {
    fn new(reply: Reply) -> Self {
        let (end, ended) = oneshot::channel();
        Self {
            reply: RefCell::new(Some(reply)),
            end: RefCell::new(end),
            ended: RefCell::new(Some(ended)),
            rejected: Cell::new(false),
        }
    }

    /// Resolves when nobody waits any more.
    async fn gone(&self) {
        std::future::poll_fn(|context| match self.reply.borrow_mut().as_mut() {
            Some(reply) => reply.poll_closed(context),
            None => self.end.borrow_mut().poll_closed(context),
        })
        .await;
    }
}

impl Partition {
    pub(super) async fn run_query(self: &Rc<Self>, job: Job) {
        let Job { head, body, deadline, reply, waiting, _accepted, .. } = job;
        drop(waiting);
        let version = self.version();
        let asker = Asker::new(reply);
        let began = Instant::now();
        let result = {
            let _doing = self.observed.begin(head.method.clone(), head.uri.clone());
            let limit = version.spec.resources.deadline.0;
            // One that waited for too long never starts.
            let running = Box::pin(async {
                if Instant::now() >= deadline {
                    return Err(RequestError::Deadline { limit });
                }
                self.query(&version, head, body, &asker, deadline).await
            });
            tokio::select! {
                biased;
                result = timeout_at(deadline, running) => {
                    result.unwrap_or(Err(RequestError::Deadline { limit }))
                }
                () = asker.gone() => Err(RequestError::BodyBroken { reason: "the asker is gone".to_owned() }),
            }
        };
        self.observed.meter.add_wall(began.elapsed());
        self.end_query(asker, result);
    }

    async fn query(
        &self,
        version: &Version,
        head: request::Parts,
        body: JobBody,
        asker: &Asker,
        deadline: Instant,
    ) -> Result<(), RequestError> {
        let mut instance = version.check_out(&self.host, &self.observed, Pool::Query, deadline).await?;
        instance.begin(if version.spec.stateful { Access::Query } else { Access::None });
        let limit = version.spec.resources.request_body;
        let body = GuestBody::new(body, limit, Arc::clone(&self.observed.meter));
        let answered = stream_answer(&mut instance, Request::from_parts(head, body), |response| {
            asker.rejected.set(response.status().as_u16() >= 400);
            let (reply, ended) = (asker.reply.take(), asker.ended.take());
            if let (Some(reply), Some(ended)) = (reply, ended) {
                let meter = Arc::clone(&self.observed.meter);
                drop(reply.send(Ok(response.map(|body| ResponseBody::stream(body, ended, meter)))));
            }
        })
        .await;
        let effects = instance.end();
        self.observed.meter.count_state(effects.read_bytes, 0);
        answered?;
        if let Some(error) = &effects.broken {
            return Err(self.read_error(error));
        }
        version.check_in(&self.host, Pool::Query, instance);
        Ok(())
    }

    fn end_query(&self, asker: Asker, result: Result<(), RequestError>) {
        let error = match &result {
            Ok(()) => {
                let rejected = asker.rejected.get();
                let outcome = if rejected { RequestOutcome::Rejected } else { RequestOutcome::Succeeded };
                self.observed.meter.count(outcome);
                None
            }
            Err(error) => Some(error.clone()),
        };
        match (asker.reply.into_inner(), error) {
            (Some(reply), Some(error)) => self.answer_error(reply, error),
            (_, error) => {
                if let Some(error) = &error {
                    self.observed.meter.count(error.outcome());
                    self.log_failure(error);
                }
                drop(asker.end.into_inner().send(result));
            }
        }
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
