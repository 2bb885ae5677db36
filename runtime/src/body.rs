//! Bodies of requests and responses as they cross the HVM's edge.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};
use tokio::sync::oneshot;
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;

use crate::RequestError;
use crate::meter::MeterCell;

/// Any error of whoever sends a body.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// The body of a request, from whatever the embedder has.
#[derive(Debug)]
pub struct RequestBody(UnsyncBoxBody<Bytes, BodyError>);

impl RequestBody {
    /// A body that is read while it arrives.
    pub fn new<B>(body: B) -> Self
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BodyError>,
    {
        Self(body.map_err(Into::into).boxed_unsync())
    }

    /// No body.
    #[must_use]
    pub fn empty() -> Self {
        Self::new(Empty::new())
    }
}

impl<B: Into<Bytes>> From<B> for RequestBody {
    fn from(bytes: B) -> Self {
        Self::new(Full::new(bytes.into()))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Pin::new(&mut self.0).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

/// The body of a response. It ends with an error, never silently short, where the guest broke it off: whoever
/// sends it on must then cut the connection.
#[derive(Debug)]
pub struct ResponseBody(Kind);

#[derive(Debug)]
enum Kind {
    Whole(Option<Bytes>),
    Stream(Box<GuestStream>),
}

/// A body that the guest is still producing.
#[derive(Debug)]
struct GuestStream {
    frames: HyperOutgoingBody,
    /// Says whether the guest finished; `None` once that is known.
    end: Option<oneshot::Receiver<Result<(), RequestError>>>,
    meter: Arc<MeterCell>,
}

impl ResponseBody {
    /// A body that is there wholly.
    pub(crate) fn whole(bytes: Bytes) -> Self {
        Self(Kind::Whole((!bytes.is_empty()).then_some(bytes)))
    }

    /// A body as the guest produces it; `end` says how the guest ended.
    pub(crate) fn stream(
        frames: HyperOutgoingBody,
        end: oneshot::Receiver<Result<(), RequestError>>,
        meter: Arc<MeterCell>,
    ) -> Self {
        Self(Kind::Stream(Box::new(GuestStream { frames, end: Some(end), meter })))
    }

    /// Reads all of it.
    ///
    /// # Errors
    /// Where the guest broke it off.
    pub async fn collect(self) -> Result<Bytes, RequestError> {
        BodyExt::collect(self).await.map(http_body_util::Collected::to_bytes)
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = RequestError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RequestError>>> {
        match &mut self.0 {
            Kind::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Kind::Stream(stream) => stream.poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Whole(bytes) => bytes.is_none(),
            Kind::Stream(stream) => stream.end.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Kind::Stream(_) => SizeHint::default(),
        }
    }
}

impl GuestStream {
    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, RequestError>>> {
        let Some(end) = &mut self.end else { return Poll::Ready(None) };
        match std::task::ready!(Pin::new(&mut self.frames).poll_frame(context)) {
            Some(Ok(frame)) => {
                self.meter.count_sent(frame.data_ref().map_or(0, Bytes::len));
                return Poll::Ready(Some(Ok(frame)));
            }
            Some(Err(_)) => {
                self.end = None;
                return Poll::Ready(Some(Err(RequestError::ResponseIncomplete)));
            }
            None => {}
        }
        // The frames also end where the guest was stopped: only `end` tells the two apart.
        let end = std::task::ready!(Pin::new(end).poll(context));
        self.end = None;
        Poll::Ready(match end {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(Err(error)),
            Err(_) => Some(Err(RequestError::ResponseIncomplete)),
        })
    }
}
