//! Bodies: of a request as its client sends it, of an answer from whoever gives it.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use hvm_runtime::{RequestBody, ResponseBody};
use hyper::body::Incoming;

use super::forward::Forwarded;
use super::requests::{Arriving, Requests};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body of a request, on its way until its end was read.
#[derive(Debug)]
pub(crate) struct ClientBody {
    incoming: Incoming,
    arriving: Option<Arriving>,
}

impl ClientBody {
    /// The body of a request on a connection. Most requests have none; they cost nothing here.
    pub(crate) fn new(incoming: Incoming, requests: &Requests) -> Self {
        let arriving = (!incoming.is_end_stream()).then(|| requests.receive());
        Self { incoming, arriving }
    }
}

impl From<ClientBody> for RequestBody {
    fn from(body: ClientBody) -> Self {
        if body.is_end_stream() { Self::empty() } else { Self::new(body) }
    }
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = Pin::new(&mut self.incoming).poll_frame(context);
        let ended = matches!(frame, Poll::Ready(None | Some(Err(_))));
        if ended || self.incoming.is_end_stream() {
            self.arriving = None;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

/// The body of an answer. An error in it makes hyper cut the connection, so that a client never takes a part
/// for the whole.
#[derive(Debug)]
pub(crate) enum AnswerBody {
    /// The ingress' own.
    Own(Full<Bytes>),
    /// A guest's on this host.
    Guest(ResponseBody),
    /// A guest's on another host.
    Forwarded(Forwarded),
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Self::Own(body) => Pin::new(body).poll_frame(context).map_err(Into::into),
            Self::Guest(body) => Pin::new(body).poll_frame(context).map_err(Into::into),
            Self::Forwarded(forwarded) => {
                Pin::new(&mut forwarded.body).poll_frame(context).map_err(Into::into)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(body) => body.is_end_stream(),
            Self::Guest(body) => body.is_end_stream(),
            Self::Forwarded(forwarded) => forwarded.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(body) => body.size_hint(),
            Self::Guest(body) => body.size_hint(),
            Self::Forwarded(forwarded) => forwarded.body.size_hint(),
        }
    }
}
