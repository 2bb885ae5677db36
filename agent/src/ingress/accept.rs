//! Listening: one socket and one accept loop on each worker of the HVM, so that a connection and the
//! partitions of that worker share a thread.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::header::CONNECTION;
use http::{HeaderValue, Request, Version};
use hvm_runtime::{Hvm, WorkerStopped};
use hvm_types::HostId;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::dispatch::Dispatch;
use super::first_bytes::FirstBytes;
use super::framing::StrictFraming;
use super::resets::Resets;
use super::serving::Serving;
use super::stalls::Stalls;

/// Connections that one worker keeps open; further ones wait in the socket's queue.
const MAX_CONNECTIONS: u32 = 8192;

/// Connections that the kernel completes ahead of `accept` (listen(2)).
const BACKLOG: i32 = 1024;

/// How long a connection may take to send a request's head, and how long it may stand unused.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a connection may take for the bytes that tell its version of HTTP.
const FIRST_BYTES_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a client may leave what is sent to it unread.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// Longest head of a request in bytes.
const MAX_HEAD_BYTES: usize = 64 << 10;

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

/// How often a quiet HTTP/2 connection is asked whether it still lives, and how long it may take to say so.
const PING_PERIOD: Duration = Duration::from_secs(20);

/// How long accepting pauses when the process has no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// An ingress that could not start.
#[derive(Debug, thiserror::Error)]
pub enum IngressError {
    /// Someone else listens there.
    #[error(
        "listen on {address} for the ingress: the port is in use; stop what uses it or choose another one"
    )]
    InUse {
        /// The address.
        address: SocketAddr,
    },
    /// The system refused.
    #[error("listen on {address} for the ingress")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What it said.
        source: io::Error,
    },
    /// The HVM has stopped.
    #[error("start the ingress")]
    Worker(#[from] WorkerStopped),
}

/// A running ingress.
#[derive(Debug)]
pub(crate) struct Ingress {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    connections: Vec<Arc<Semaphore>>,
}

impl Ingress {
    /// Listens on `address` with every worker; port 0 takes a free one.
    pub(crate) async fn start(
        hvm: &Hvm,
        address: SocketAddr,
        serving: &watch::Receiver<Arc<Serving>>,
        here: &HostId,
    ) -> Result<Self, IngressError> {
        let address = free_address(address)?;
        let (stop, stopped) = watch::channel(false);
        let mut connections = Vec::new();
        for worker in hvm.workers() {
            let listener = listen(address).map_err(|source| IngressError::Listen { address, source })?;
            let places = Arc::new(Semaphore::new(usize::try_from(MAX_CONNECTIONS).unwrap_or(usize::MAX)));
            connections.push(Arc::clone(&places));
            let (hvm, serving, here) = (hvm.clone(), serving.clone(), here.clone());
            let stopped = stopped.clone();
            let accepting = move || async move {
                let dispatch = Rc::new(Dispatch::new(hvm, serving, &here));
                match TcpListener::from_std(listener) {
                    Ok(listener) => accept(listener, dispatch, places, stopped).await,
                    Err(error) => tracing::error!(%error, "a worker can't accept connections"),
                }
            };
            worker.spawn(accepting).await?;
        }
        Ok(Self { address, stop, connections })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes no new connections, lets clients of open ones know that they end, and waits for the requests under
    /// way, at most for `grace`. Whether all were answered.
    pub(crate) async fn stop(self, grace: Duration) -> bool {
        self.stop.send_replace(true);
        let all = async {
            for places in &self.connections {
                if places.acquire_many(MAX_CONNECTIONS).await.is_err() {
                    break;
                }
            }
        };
        tokio::time::timeout(grace, all).await.is_ok()
    }
}

/// Checks that nobody listens there, and chooses a port where none was given. The workers' sockets share
/// their port, which the kernel would let them do with another process' as well.
fn free_address(address: SocketAddr) -> Result<SocketAddr, IngressError> {
    let probe = || -> io::Result<SocketAddr> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        let bound = socket.local_addr()?;
        Ok(bound.as_socket().unwrap_or(address))
    };
    probe().map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => IngressError::InUse { address },
        _ => IngressError::Listen { address, source },
    })
}

fn listen(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

async fn accept(
    listener: TcpListener,
    dispatch: Rc<Dispatch>,
    places: Arc<Semaphore>,
    mut stopped: watch::Receiver<bool>,
) {
    let server = Rc::new(server());
    loop {
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            next = next => next,
            _ = stopped.wait_for(|stopped| *stopped) => return,
        };
        let Ok(place) = place else { return };
        match accepted {
            Ok((stream, _)) => {
                let (server, dispatch, stopped) = (Rc::clone(&server), Rc::clone(&dispatch), stopped.clone());
                tokio::task::spawn_local(async move {
                    Box::pin(serve(&server, stream, dispatch, stopped, place)).await;
                });
            }
            Err(error) => {
                tracing::warn!(%error, "accepting a connection failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve(
    server: &auto::Builder<LocalExecutor>,
    stream: TcpStream,
    dispatch: Rc<Dispatch>,
    mut stopped: watch::Receiver<bool>,
    _place: OwnedSemaphorePermit,
) {
    // Without it small answers wait for the client's acknowledgement; it can only fail on a dead connection.
    let _ = stream.set_nodelay(true);
    let stopping = stopped.clone();
    let resets = Rc::new(Resets::default());
    let counted = Rc::clone(&resets);
    let service = service_fn(move |request: Request<Incoming>| {
        let (dispatch, stopping) = (Rc::clone(&dispatch), stopping.clone());
        let has_streams = request.version() == Version::HTTP_2;
        let unanswered = has_streams.then(|| counted.begin());
        async move {
            let mut response = dispatch.answer(request).await;
            if let Some(unanswered) = unanswered {
                unanswered.answered();
            }
            if *stopping.borrow() && !has_streams {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(response)
        }
    });
    let stream = FirstBytes::new(Stalls::new(stream, WRITE_TIMEOUT), FIRST_BYTES_TIMEOUT);
    let stream = TokioIo::new(StrictFraming::new(stream));
    let mut connection = std::pin::pin!(server.serve_connection(stream, service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = resets.too_many() => {
            tracing::debug!("a connection was closed: it took back too many requests");
            return;
        }
        _ = stopped.wait_for(|stopped| *stopped) => {
            match tokio::time::timeout(LAST_REQUESTS, connection.as_mut()).await {
                Ok(ended) => ended,
                Err(_) => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended with an error");
    }
}

fn server() -> auto::Builder<LocalExecutor> {
    let mut server = auto::Builder::new(LocalExecutor);
    server
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
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
    server
}

/// Runs what hyper spawns on the worker's own thread.
#[derive(Debug, Clone, Copy)]
struct LocalExecutor;

impl<F: Future<Output: 'static> + 'static> hyper::rt::Executor<F> for LocalExecutor {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}
