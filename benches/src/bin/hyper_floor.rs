//! `hyper-floor ADDRESS`: the floor of the load bench. hyper and nothing else, one single-threaded executor on each
//! core with a socket of its own, like our ingress. It answers every request with the bytes that the HVM answers with
//! for `hello`.

use std::convert::Infallible;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::thread;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

/// Connections that the kernel completes ahead of `accept` (listen(2)).
const BACKLOG: i32 = 1024;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (Some(Ok(address)), None) = (arguments.next().map(|text| text.parse()), arguments.next()) else {
        drop(writeln!(io::stderr(), "usage: hyper-floor ADDRESS"));
        return ExitCode::from(2);
    };
    match run(address) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            drop(writeln!(io::stderr(), "hyper-floor: can't serve on {address}: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn run(address: SocketAddr) -> io::Result<()> {
    let cores = thread::available_parallelism()?.get();
    let workers: Vec<_> = (0..cores).map(|_| thread::spawn(move || work(address))).collect();
    for worker in workers {
        worker.join().map_err(|_| io::Error::other("a thread panicked"))??;
    }
    Ok(())
}

fn work(address: SocketAddr) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let listener = TcpListener::from_std(listen(address)?)?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio::task::spawn_local(async move {
                // A connection that breaks off concerns nobody else.
                drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer)).await);
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

async fn answer(_request: Request<hyper::body::Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut response = Response::new(Full::new(Bytes::from_static(b"hello\n")));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(HeaderName::from_static("hvm-partition"), HeaderValue::from_static("bench/web/0"));
    Ok(response)
}
