//! Listening: one socket and one accept loop on each worker of the HVM, so that a connection and the
//! partitions of that worker share a thread.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hvm_runtime::{Hvm, OpenFiles, WorkerStopped};
use hvm_types::HostId;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

use super::connection::Server;
use super::connections::{Connection, Connections};
use super::dispatch::Dispatch;
use super::forward::Forward;
use super::serving::Serving;

/// Connections that the kernel completes ahead of `accept` (listen(2)).
const BACKLOG: i32 = 1024;

/// How long accepting pauses when it failed: where the process or the system has no file left, it would fail at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How often a worker says that accepting fails.
const COMPLAINT_PERIOD: Duration = Duration::from_secs(10);

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
    /// Of each worker.
    places: Vec<Arc<Semaphore>>,
    places_each: u32,
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
        let files = OpenFiles::read();
        let workers = hvm.workers().len();
        let places_each = files.clients_per_worker(workers);
        let mut all_places = Vec::new();
        for worker in hvm.workers() {
            let listener = listen(address).map_err(|source| IngressError::Listen { address, source })?;
            let places = Arc::new(Semaphore::new(places_each));
            all_places.push(Arc::clone(&places));
            let (hvm, serving, here) = (hvm.clone(), serving.clone(), here.clone());
            let stopped = stopped.clone();
            let accepting = move || async move {
                let forward = Forward::new(&here, files.forwarded_per_worker(workers));
                let dispatch = Rc::new(Dispatch::new(hvm, serving, forward));
                match TcpListener::from_std(listener) {
                    Ok(listener) => accept(listener, dispatch, places, stopped).await,
                    Err(error) => tracing::error!(%error, "a worker can't accept connections"),
                }
            };
            worker.spawn(accepting).await?;
        }
        let places_each = u32::try_from(places_each).unwrap_or(u32::MAX);
        Ok(Self { address, stop, places: all_places, places_each })
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
            for places in &self.places {
                if places.acquire_many(self.places_each).await.is_err() {
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
    let mut complaint = Complaint::default();
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
                if let Some(times) = complaint.failed(Instant::now()) {
                    tracing::warn!(%error, times, "accepting connections failed");
                }
                connections.make_room();
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// What is said of failures that may go on and on.
#[derive(Debug, Default)]
struct Complaint {
    last: Option<Instant>,
    unsaid: u64,
}

impl Complaint {
    /// Counts a failure. Returns how many there were since the last one that was said, where it is time to say one.
    fn failed(&mut self, now: Instant) -> Option<u64> {
        self.unsaid += 1;
        let is_due = self.last.is_none_or(|last| now.duration_since(last) >= COMPLAINT_PERIOD);
        is_due.then(|| {
            self.last = Some(now);
            std::mem::take(&mut self.unsaid)
        })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_that_goes_on_is_said_now_and_then_with_how_often_it_came() {
        let (mut complaint, start) = (Complaint::default(), Instant::now());
        assert_eq!(complaint.failed(start), Some(1));
        for _ in 0..99 {
            assert_eq!(complaint.failed(start + COMPLAINT_PERIOD / 2), None);
        }
        assert_eq!(complaint.failed(start + COMPLAINT_PERIOD), Some(100));
        assert_eq!(complaint.failed(start + COMPLAINT_PERIOD), None);
    }
}
