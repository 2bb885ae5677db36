//! Listening: one socket and one accept loop on each worker of the HVM, so that a connection and the
//! partitions of that worker share a thread.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hvm_runtime::{Hvm, WorkerStopped};
use hvm_types::HostId;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

use super::connection::Server;
use super::connections::{Connection, Connections};
use super::dispatch::Dispatch;
use super::serving::Serving;

/// Connections that one worker keeps open; further ones wait in the socket's queue.
const MAX_CONNECTIONS: u32 = 8192;

/// Connections that the kernel completes ahead of `accept` (listen(2)).
const BACKLOG: i32 = 1024;

/// How long accepting pauses when the process has no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How often a connection that has no place looks whether one of the others can make room.
const ROOM_PERIOD: Duration = Duration::from_millis(100);

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
    let connections = Connections::new(places);
    let mut watching = std::pin::pin!(connections.watch());
    let server = Rc::new(Server::new());
    loop {
        let accepted = async {
            let (stream, _) = listener.accept().await?;
            Ok::<_, io::Error>((stream, place(&connections).await))
        };
        let accepted = tokio::select! {
            accepted = accepted => accepted,
            () = watching.as_mut() => return,
            _ = stopped.wait_for(|stopped| *stopped) => break,
        };
        match accepted {
            Ok((stream, connection)) => {
                let (server, dispatch, stopped) = (Rc::clone(&server), Rc::clone(&dispatch), stopped.clone());
                tokio::task::spawn_local(async move {
                    Box::pin(serve(&server, stream, dispatch, stopped, connection)).await;
                });
            }
            Err(error) => {
                tracing::warn!(%error, "accepting a connection failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// A place for a connection that was accepted. Those that wait behind it stay in the socket's queue meanwhile.
async fn place(connections: &Rc<Connections>) -> Connection {
    loop {
        if let Some(connection) = connections.try_open() {
            return connection;
        }
        connections.make_room();
        // Those that were told to go do it when it is their turn on this thread.
        tokio::task::yield_now().await;
        if let Some(connection) = connections.try_open() {
            return connection;
        }
        tokio::time::sleep(ROOM_PERIOD).await;
    }
}

async fn serve(
    server: &Server,
    stream: TcpStream,
    dispatch: Rc<Dispatch>,
    stopped: watch::Receiver<bool>,
    connection: Connection,
) {
    // Without it small answers wait for the client's acknowledgement; it can only fail on a dead connection.
    let _ = stream.set_nodelay(true);
    let answer = move |request| Rc::clone(&dispatch).answer(request);
    server.serve(stream, answer, stopped, connection).await;
}
