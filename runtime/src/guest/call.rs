//! One request through one instance, with `wasi:http/incoming-handler`.
//!
//! A guest hands out the head of its response, then writes the body into a bounded channel, then returns. The
//! two ways through differ in who reads that channel: [`answer_whole`] reads it here and gives the answer out
//! only when the guest has finished entirely; [`stream_answer`] passes it on at once.

use std::cell::Cell;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::header::CONTENT_LENGTH;
use http::{Method, Request, Response, StatusCode, response};
use http_body::Body;
use http_body_util::{BodyExt as _, Full};
use hvm_types::ByteSize;
use tokio::sync::oneshot;
use wasmtime_wasi_http::p2::bindings::http::types::{ErrorCode, Scheme};
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;
use wasmtime_wasi_http::{Error, WasiHttpView as _};

use super::Instance;
use super::dump::stopped;
use crate::RequestError;
use crate::memory::Charge;

type Head = Result<Response<HyperOutgoingBody>, ErrorCode>;

/// Runs a request and returns its answer when the guest has returned and the body is complete.
pub(crate) async fn answer_whole<B>(
    instance: &mut Instance,
    request: Request<B>,
    limit: ByteSize,
) -> Result<(response::Parts, Bytes), RequestError>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Error>,
{
    if instance.http.is_none() {
        let (head, body) = request.into_parts();
        let body = whole(body).await?;
        return instance.call_by_http(&head, body).await;
    }
    let (sender, receiver) = oneshot::channel();
    let charge = Charge::none(Arc::clone(instance.store.data().limiter.account()));
    // Without its own budget the reader could be told to wait while there is something to read, and the guest
    // would be taken to have left its body unfinished.
    let began = Cell::new(false);
    let mut reader = pin!(tokio::task::unconstrained(read_answer(receiver, &began, limit, charge)));
    let ended = {
        let mut call = pin!(call(instance, request, sender));
        let ended = std::future::poll_fn(|context| {
            if let Poll::Ready(result) = call.as_mut().poll(context) {
                return Poll::Ready(Ended::Call(result));
            }
            match reader.as_mut().poll(context) {
                // The answer is whole; what remains is the guest's way to its end.
                Poll::Ready(Ok(answer)) => Poll::Ready(Ended::Answer(answer)),
                Poll::Ready(Err(error)) => Poll::Ready(Ended::Failed(error)),
                Poll::Pending => Poll::Pending,
            }
        })
        .await;
        ended.finish(call).await
    };
    match ended {
        Ended::Answer(answer) => Ok(answer),
        Ended::Failed(error) => Err(error),
        Ended::Call(Err(error)) => Err(error),
        Ended::Call(Ok(())) => {
            // All that the guest sent is in the channel: one look tells.
            let mut context = Context::from_waker(std::task::Waker::noop());
            match reader.as_mut().poll(&mut context) {
                Poll::Ready(result) => result,
                Poll::Pending if began.get() => Err(RequestError::ResponseIncomplete),
                Poll::Pending => Err(RequestError::NoResponse),
            }
        }
    }
}

/// How a request came to its end.
enum Ended {
    /// The guest returned, or was stopped.
    Call(Result<(), RequestError>),
    /// The answer was whole before the guest returned.
    Answer((response::Parts, Bytes)),
    /// There will be no answer.
    Failed(RequestError),
}

impl Ended {
    /// Lets the guest return where only that is missing.
    async fn finish(self, call: impl Future<Output = Result<(), RequestError>>) -> Self {
        match self {
            Self::Answer(answer) => match call.await {
                Ok(()) => Self::Answer(answer),
                Err(error) => Self::Failed(error),
            },
            // Nobody told the guest's reader: the guest may be gone for another reason.
            Self::Failed(RequestError::NoResponse) => match call.await {
                Ok(()) => Self::Failed(RequestError::NoResponse),
                Err(error) => Self::Failed(error),
            },
            ended => ended,
        }
    }
}

async fn read_answer(
    head: oneshot::Receiver<Head>,
    began: &Cell<bool>,
    limit: ByteSize,
    mut charge: Charge,
) -> Result<(response::Parts, Bytes), RequestError> {
    let response = head_of(head.await, false)?;
    began.set(true);
    let (parts, body) = response.into_parts();
    let mut body = pin!(body);
    let mut first: Option<Bytes> = None;
    let mut more = BytesMut::new();
    while let Some(frame) = body.frame().await {
        // Trailers are dropped: a stored answer has none.
        let Ok(data) = frame.map_err(|_| RequestError::ResponseIncomplete)?.into_data() else { continue };
        let read = first.as_ref().map_or(more.len(), Bytes::len) + data.len();
        if read as u64 > limit.0 {
            return Err(RequestError::ResponseTooLarge { limit });
        }
        if first.is_none() && more.is_empty() {
            first = Some(data);
            continue;
        }
        let begun = first.take().unwrap_or_default();
        charge.add((begun.len() + data.len()) as u64).map_err(|trap| RequestError::Trapped { trap })?;
        more.extend_from_slice(&begun);
        more.extend_from_slice(&data);
    }
    // What came in one piece is charged where it was written.
    Ok((parts, first.unwrap_or_else(|| charge.keep(more.freeze()))))
}

fn head_of(
    head: Result<Head, oneshot::error::RecvError>,
    asked_for_head: bool,
) -> Result<Response<HyperOutgoingBody>, RequestError> {
    match head {
        Ok(Ok(response)) => check(response, asked_for_head),
        Ok(Err(code)) => Err(RequestError::GuestError { code: name_of(&code) }),
        Err(_) => Err(RequestError::NoResponse),
    }
}

/// Refuses what could not be sent as it is.
fn check(
    response: Response<HyperOutgoingBody>,
    asked_for_head: bool,
) -> Result<Response<HyperOutgoingBody>, RequestError> {
    let status = response.status();
    if status.is_informational() {
        let reason = format!("{} is no final status", status.as_u16());
        return Err(RequestError::ResponseInvalid { reason });
    }
    let may_lack_body = asked_for_head || status == StatusCode::NOT_MODIFIED;
    if response.body().is_end_stream() && !may_lack_body {
        // A guest that never opened the body was not asked whether it wrote what it promised.
        let promised = response.headers().get(CONTENT_LENGTH).filter(|length| length.as_bytes() != b"0");
        if let Some(length) = promised {
            let reason = format!("`content-length` is {length:?} and there is no body");
            return Err(RequestError::ResponseInvalid { reason });
        }
    }
    Ok(response)
}

/// The error's name without its details, which are the guest's.
fn name_of(code: &ErrorCode) -> String {
    let text = format!("{code:?}");
    let end = text.find("::").map_or(0, |at| at + 2);
    text[end..].split(['(', ' ']).next().unwrap_or_default().to_owned()
}

/// Runs a request, hands its head to `on_head` when it is there, and returns when the guest has.
pub(crate) async fn stream_answer<B>(
    instance: &mut Instance,
    request: Request<B>,
    on_head: impl FnOnce(Response<HyperOutgoingBody>),
) -> Result<(), RequestError>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Error>,
{
    if instance.http.is_none() {
        let (head, body) = request.into_parts();
        let body = whole(body).await?;
        let (head, body) = instance.call_by_http(&head, body).await?;
        on_head(Response::from_parts(head, Full::new(body).map_err(|never| match never {}).boxed_unsync()));
        return Ok(());
    }
    let (sender, mut receiver) = oneshot::channel();
    let asked_for_head = request.method() == Method::HEAD;
    let early = {
        let mut call = pin!(call(instance, request, sender));
        let mut head = pin!(&mut receiver);
        let first = std::future::poll_fn(|context| {
            if let Poll::Ready(result) = call.as_mut().poll(context) {
                return Poll::Ready(Err(result));
            }
            head.as_mut().poll(context).map(Ok)
        })
        .await;
        match first {
            Ok(head) => {
                let response = match head_of(head, asked_for_head) {
                    Ok(response) => response,
                    Err(RequestError::NoResponse) => {
                        call.await?;
                        return Err(RequestError::NoResponse);
                    }
                    Err(error) => return Err(error),
                };
                on_head(response);
                call.await?;
                None
            }
            Err(result) => {
                result?;
                Some(on_head)
            }
        }
    };
    if let Some(on_head) = early {
        let head = receiver.try_recv().map_err(|_| RequestError::NoResponse)?;
        on_head(head_of(Ok(head), asked_for_head)?);
    }
    Ok(())
}

/// A request's body, read to its end.
async fn whole<B>(body: B) -> Result<Bytes, RequestError>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Error>,
{
    let collected = body.collect().await.map_err(|error| match error.into() {
        Error::HttpRequestBodySize(Some(limit)) => RequestError::BodyTooLarge { limit: ByteSize(limit) },
        error => RequestError::BodyBroken { reason: error.to_string() },
    })?;
    Ok(collected.to_bytes())
}

async fn call<B>(
    instance: &mut Instance,
    request: Request<B>,
    head: oneshot::Sender<Head>,
) -> Result<(), RequestError>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Error>,
{
    let Instance { store, http: Some(proxy), .. } = instance else { return Err(RequestError::NoResponse) };
    let scheme = match request.uri().scheme_str() {
        Some("https") => Scheme::Https,
        _ => Scheme::Http,
    };
    let mut http = store.data_mut().http();
    let invalid = |error: wasmtime::Error| RequestError::Invalid { reason: error.root_cause().to_string() };
    let request = http.new_incoming_request(scheme, request).map_err(invalid)?;
    let head = http.new_response_outparam(head).map_err(invalid)?;
    let result = proxy.wasi_http_incoming_handler().call_handle(&mut **store, request, head).await;
    result.map_err(|error| RequestError::Trapped { trap: stopped(store, error) })
}
