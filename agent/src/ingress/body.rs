//! The body of an answer, from whoever gives it.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use hvm_runtime::ResponseBody;

use super::forward::Forwarded;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

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
