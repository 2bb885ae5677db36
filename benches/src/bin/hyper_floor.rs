//! `hyper-floor ADDRESS [reused|fresh COMPONENT]`: the floors of the load bench. hyper and nothing else, one
//! single-threaded executor on each core with a socket of its own, like our ingress. It answers every request with the
//! bytes that the HVM answers with for `hello`.
//!
//! With a component, that answers instead, in bare wasmtime: what is left of our path without routes, mailboxes,
//! limits, meters and log. Each thread keeps its idle instances, or makes one for each request.

use std::cell::RefCell;
use std::convert::Infallible;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::rc::Rc;
use std::thread;

use bytes::Bytes;
use http_body_util::{Empty, Full};
use hvm_benches::bare::{Bare, BareInstance, BareModule};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

/// As `hvm` has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Connections that the kernel completes ahead of `accept` (listen(2)).
const BACKLOG: i32 = 1024;

/// Instances at the same time: more than the load has connections.
const INSTANCES: u32 = 512;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (address, guest) = match *arguments.as_slice() {
        [address] => (address, None),
        [address, "reused", component] => (address, Some((true, component))),
        [address, "fresh", component] => (address, Some((false, component))),
        _ => ("", None),
    };
    let Ok(address) = address.parse() else {
        drop(writeln!(io::stderr(), "usage: hyper-floor ADDRESS [reused|fresh COMPONENT]"));
        return ExitCode::from(2);
    };
    match run(address, guest) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            drop(writeln!(io::stderr(), "hyper-floor: can't serve on {address}: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn run(address: SocketAddr, guest: Option<(bool, &str)>) -> io::Result<()> {
    let module = match guest {
        Some((keeps, component)) => Some((keeps, Bare::new(INSTANCES).compile(&std::fs::read(component)?))),
        None => None,
    };
    let cores = thread::available_parallelism()?.get();
    let worker = |_| {
        let guest = module.clone().map(|(keeps, module)| Guest { module, keeps, idle: RefCell::default() });
        thread::spawn(move || work(address, guest))
    };
    let workers: Vec<_> = (0..cores).map(worker).collect();
    for worker in workers {
        worker.join().map_err(|_| io::Error::other("a thread panicked"))??;
    }
    Ok(())
}

fn work(address: SocketAddr, guest: Option<Guest>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let guest = guest.map(Rc::new);
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let listener = TcpListener::from_std(listen(address)?)?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let guest = guest.clone();
            tokio::task::spawn_local(async move {
                let (http, io) = (http1::Builder::new(), TokioIo::new(stream));
                // A connection that breaks off concerns nobody else.
                match guest {
                    Some(guest) => {
                        let ask = |request| answer_by(Rc::clone(&guest), request);
                        drop(http.serve_connection(io, service_fn(ask)).await);
                    }
                    None => drop(http.serve_connection(io, service_fn(answer)).await),
                }
            });
        }
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

async fn answer(_request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut response = Response::new(Full::new(Bytes::from_static(b"hello\n")));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    name_partition(&mut response);
    Ok(response)
}

fn name_partition<B>(response: &mut Response<B>) {
    let name = HeaderName::from_static("hvm-partition");
    response.headers_mut().insert(name, HeaderValue::from_static("bench/web/0"));
}

/// A component on one thread.
struct Guest {
    module: BareModule,
    /// Whether instances are kept for other requests.
    keeps: bool,
    idle: RefCell<Vec<BareInstance>>,
}

/// The component's answer. What the client sends as a body is left out: the load has none.
async fn answer_by(
    guest: Rc<Guest>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let idle = guest.idle.borrow_mut().pop();
    let mut instance = match idle {
        Some(instance) => instance,
        None => guest.module.instantiate().await,
    };
    let mut response = instance.answer(request.map(|_| Empty::new())).await.map(Full::new);
    name_partition(&mut response);
    if guest.keeps {
        guest.idle.borrow_mut().push(instance);
    }
    Ok(response)
}
