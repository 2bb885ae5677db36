//! A response body that fails where the other side stops sending. Time in which the guest does not read
//! does not count.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Sleep;
use wasmtime_wasi_http::Error;

use super::failure;

pub(super) struct StallingBody {
    incoming: Incoming,
    between_bytes: Duration,
    /// Runs while a reader waits.
    waiting: Option<Pin<Box<Sleep>>>,
}

impl StallingBody {
    pub(super) const fn new(incoming: Incoming, between_bytes: Duration) -> Self {
        Self { incoming, between_bytes, waiting: None }
    }
}

impl Body for StallingBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.incoming).poll_frame(cx) {
            self.waiting = None;
            return Poll::Ready(frame.map(|frame| frame.map_err(|error| failure::of_hyper(&error))));
        }
        let between_bytes = self.between_bytes;
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(tokio::time::sleep(between_bytes)));
        waiting.as_mut().poll(cx).map(|()| Some(Err(Error::ConnectionReadTimeout)))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
