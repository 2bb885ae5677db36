//! HTTP/1.1 in front of one partition. The loops: `accept` takes connections until a signal comes, and each
//! connection is a tokio task of its own; on a signal both end, connections after the request they are at.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body_util::{Either, Full};
use hvm_runtime::{Hvm, RequestBody, RequestError, ResponseBody};
use hvm_types::ReplicaId;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, watch};

use crate::failure::Failure;

/// Connections at the same time; further ones wait in the socket's queue.
const MAX_CONNECTIONS: u32 = 1024;
/// How long a connection may take to send a request's head, and how long it may stand unused.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long requests under way may take after a signal.
const GRACE: Duration = Duration::from_secs(10);
/// How long accepting pauses when the process has no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

type Answer = Response<Either<ResponseBody, Full<Bytes>>>;

/// Serves until SIGINT or SIGTERM, then finishes what is under way.
pub(super) async fn serve_until_signal(
    listener: TcpListener,
    hvm: Hvm,
    id: ReplicaId,
) -> Result<(), Failure> {
    let stopped = stop_signal()?;
    let places = Arc::new(Semaphore::new(usize::try_from(MAX_CONNECTIONS).unwrap_or(usize::MAX)));
    let (stop, stopping) = watch::channel(false);
    tokio::select! {
        () = accept(&listener, &places, &stopping, &hvm, &id) => {}
        () = stopped => {}
    }
    stop.send_replace(true);
    drop(listener);
    // Every connection holds one place.
    match tokio::time::timeout(GRACE, places.acquire_many(MAX_CONNECTIONS)).await {
        Ok(_) => Ok(()),
        Err(_) => {
            Err(Failure::new(format!("some requests were not answered within {GRACE:?} and were cut off")))
        }
    }
}

fn stop_signal() -> Result<impl Future<Output = ()>, Failure> {
    let failed = |error| Failure::new(format!("cannot listen for signals: {error}"));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
    stopping: &watch::Receiver<bool>,
    hvm: &Hvm,
    id: &ReplicaId,
) {
    loop {
        let Ok(place) = Arc::clone(places).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let (hvm, id, stopping) = (hvm.clone(), id.clone(), stopping.clone());
        tokio::spawn(async move {
            serve_connection(stream, hvm, id, stopping).await;
            drop(place);
        });
    }
}

async fn serve_connection(stream: TcpStream, hvm: Hvm, id: ReplicaId, mut stopping: watch::Receiver<bool>) {
    // A small answer leaves at once.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let (hvm, id) = (hvm.clone(), id.clone());
        async move { Ok::<_, Infallible>(answer(&hvm, &id, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    // An error here is the other side's: it broke off, or spoke no HTTP.
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = stopping.wait_for(|stop| *stop) => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

async fn answer(hvm: &Hvm, id: &ReplicaId, request: Request<Incoming>) -> Answer {
    match hvm.request(id, request.map(RequestBody::new)).await {
        Ok(response) => response.map(Either::Left),
        Err(error) => refusal(&error),
    }
}

fn refusal(error: &RequestError) -> Answer {
    let body = Full::from(format!("{error}\n"));
    let mut response = Response::new(Either::Right(body));
    *response.status_mut() = error.status();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    if let Some(wait) = error.retry_after() {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs()));
    }
    response
}
