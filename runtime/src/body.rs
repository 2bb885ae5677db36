//! Bodies of requests and responses as they cross the HVM's edge.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};

use crate::RequestError;
use crate::stream::AnswerReader;

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
    /// The guest may still be producing it.
    Stream(AnswerReader),
}

impl ResponseBody {
    /// A body that is there wholly.
    pub(crate) fn whole(bytes: Bytes) -> Self {
        Self(Kind::Whole((!bytes.is_empty()).then_some(bytes)))
    }

    /// A body as its guest produces it.
    pub(crate) const fn stream(reader: AnswerReader) -> Self {
        Self(Kind::Stream(reader))
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
            Kind::Stream(reader) => reader.poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Whole(bytes) => bytes.is_none(),
            Kind::Stream(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Kind::Stream(_) => SizeHint::default(),
        }
    }
}
