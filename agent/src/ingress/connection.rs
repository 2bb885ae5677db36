//! One connection: HTTP/1.1 or HTTP/2, whichever its first bytes say, and within which bounds.

use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;

use futures::FutureExt as _;
use http::header::CONNECTION;
use http::{HeaderValue, Request, Response, Version};
use http_body::Body;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

use super::body::ClientBody;
use super::connections::Connection;
use super::framing::{MAX_HEAD_BYTES, StrictFraming};
use super::requests::Ending;
use super::stalls::Stalls;

/// How long a client may leave what is sent to it unread.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// Requests at the same time on one HTTP/2 connection.
const MAX_STREAMS: u32 = 128;

/// What an HTTP/2 client may send ahead of its reader, on a stream and on all of a connection.
const STREAM_WINDOW_BYTES: u32 = 256 << 10;
/// See [`STREAM_WINDOW_BYTES`].
const CONNECTION_WINDOW_BYTES: u32 = 1 << 20;

/// What waits to be sent on an HTTP/2 stream.
const SEND_BUFFER_BYTES: usize = 64 << 10;

/// Streams that an HTTP/2 client opened and reset before anyone looked (CVE-2023-44487), and streams that were reset
/// for a fault of the client's, until its connection is closed.
const MAX_UNSEEN_RESETS: usize = 20;
/// See [`MAX_UNSEEN_RESETS`].
const MAX_FAULTY_STREAMS: usize = 256;

/// When the agent stops: how long connections in use still take requests, each answered with
/// `connection: close` (RFC 9112, section 9.6). Closing at once would cut off a request that its client has just sent.
const LAST_REQUESTS: Duration = Duration::from_millis(250);

/// How often an HTTP/2 connection that sends nothing is asked whether it still lives, and how long it may take to say so.
const PING_PERIOD: Duration = Duration::from_secs(20);

/// What serves connections; the same for all of a worker.
#[derive(Debug, Clone)]
pub(crate) struct Server(auto::Builder<LocalExecutor>);

impl Server {
    pub(crate) fn new() -> Self {
        let mut server = auto::Builder::new(LocalExecutor);
        server
            .http1()
            // Its timer is one for each request; the table of connections bounds heads, too.
            .header_read_timeout(None)
            // At most 100 header fields, hyper's own limit: with another one it takes memory for each request's head.
            .max_buf_size(MAX_HEAD_BYTES);
        server
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_PERIOD)
            .keep_alive_timeout(PING_PERIOD)
            .max_concurrent_streams(MAX_STREAMS)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_send_buf_size(SEND_BUFFER_BYTES)
            .max_pending_accept_reset_streams(MAX_UNSEEN_RESETS)
            .max_local_error_reset_streams(MAX_FAULTY_STREAMS)
            .max_header_list_size(u32::try_from(MAX_HEAD_BYTES).unwrap_or(u32::MAX));
        Self(server)
    }

    /// Answers the requests of a connection until it ends, or has to.
    pub(crate) async fn serve<S, A, F, B>(
        &self,
        stream: S,
        answer: A,
        mut stopped: watch::Receiver<bool>,
        connection: Connection,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
        A: Fn(Request<ClientBody>) -> F + 'static,
        F: Future<Output = Response<B>> + 'static,
        B: Body + Unpin + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let requests = Rc::clone(connection.requests());
        let begun = Rc::clone(&requests);
        let shared = Rc::new((answer, stopped.clone()));
        let service = service_fn(move |request: Request<Incoming>| {
            let has_streams = request.version() == Version::HTTP_2;
            let under_way = begun.begin(has_streams);
            let request = request.map(|body| ClientBody::new(body, &begun));
            let shared = Rc::clone(&shared);
            async move {
                let (answer, stopping) = &*shared;
                let mut response = answer(request).await.map(|body| under_way.answered(body));
                if *stopping.borrow() && !has_streams {
                    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, Infallible>(response)
            }
        });
        let stream = TokioIo::new(StrictFraming::new(Stalls::new(stream, WRITE_TIMEOUT)));
        let mut serving = std::pin::pin!(self.0.serve_connection(stream, service));
        let ended = loop {
            let ending = tokio::select! {
                ended = serving.as_mut() => break ended,
                ending = requests.told() => ending,
                _ = stopped.wait_for(|stopped| *stopped) => {
                    break match tokio::time::timeout(LAST_REQUESTS, serving.as_mut()).await {
                        Ok(ended) => ended,
                        Err(_) => {
                            serving.as_mut().graceful_shutdown();
                            serving.await
                        }
                    };
                }
            };
            if matches!(ending, Ending::TakenBack | Ending::Sending) {
                tracing::debug!(?ending, "a connection was closed with its requests");
                return;
            }
            serving.as_mut().graceful_shutdown();
            if ending == Ending::Now {
                // Once more, so that an HTTP/2 client is told.
                if let Some(ended) = serving.as_mut().now_or_never() {
                    break ended;
                }
                // A request may have come at last; it is answered.
                if requests.is_quiet() {
                    return;
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection ended with an error");
        }
    }
}

/// Runs what hyper spawns on the worker's own thread.
#[derive(Debug, Clone, Copy)]
struct LocalExecutor;

impl<F: Future<Output: 'static> + 'static> hyper::rt::Executor<F> for LocalExecutor {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

#[cfg(test)]
mod tests;
