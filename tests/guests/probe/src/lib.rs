//! A guest that does what its path says, so that tests can ask it for every good and bad thing a guest does.
//!
//! `README.md` beside this crate lists the paths. Those that answer in the ordinary way go through the SDK; those that
//! don't (silent, half an answer, too big an answer) speak to `wasi:http` themselves.

mod fault;
mod greed;
mod host;
mod migrate;
mod pipe;
mod raw;
mod state;

use std::sync::atomic::{AtomicU64, Ordering};

use hvm_guest::{Migration, Request, Response};
use wasip2::http::types::{IncomingRequest, ResponseOutparam};

struct Probe;

impl wasip2::exports::http::incoming_handler::Guest for Probe {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        match raw::Misbehaviour::of(request) {
            Ok(misbehaviour) => misbehaviour.answer(out),
            Err(request) => hvm_guest::serve(&handle, request, out),
        }
    }
}

wasip2::http::proxy::export!(Probe with_types_in wasip2);

/// The answer, with the header `name:value` that `answer-header` names.
fn handle(request: Request) -> Response {
    let header = request.query_param("answer-header");
    let response = routed(request);
    match header.as_deref().and_then(|header| header.split_once(':')) {
        Some((name, value)) => response.with_header(name, value),
        None => response,
    }
}

fn routed(request: Request) -> Response {
    if let Some(migration) = Migration::of(&request) {
        return migrate::answer(migration);
    }
    let segments = request.segments();
    let parts: Vec<&str> = segments.iter().map(String::as_str).collect();
    match parts.as_slice() {
        [] => Response::text("probe\n"),
        ["echo"] => echo(request),
        ["counter-in-memory"] => count(),
        ["write-in-get"] => state::set(&request),
        ["kv", action] => state::answer(action, &request),
        [action] => fault::answer(action, &request)
            .or_else(|| greed::answer(action, &request))
            .or_else(|| host::answer(action, &request))
            .unwrap_or_else(unknown),
        _ => unknown(),
    }
}

fn unknown() -> Response {
    Response::error(404, "there is no such probe")
}

/// The body back; method, path, query and headers in headers whose names begin with `echo-`.
fn echo(request: Request) -> Response {
    let status = number(&request, "status").and_then(|status| u16::try_from(status).ok()).unwrap_or(200);
    let mut response = Response::bytes("application/octet-stream", request.body)
        .with_status(status)
        .with_header("echo-method", request.method)
        .with_header("echo-path", request.path)
        .with_header("echo-query", request.query);
    for (name, value) in request.headers {
        response = response.with_header(&format!("echo-header-{name}"), value);
    }
    response
}

/// How often this instance was asked: begins anew when the host discards it.
fn count() -> Response {
    static ASKED: AtomicU64 = AtomicU64::new(0);
    Response::text((ASKED.fetch_add(1, Ordering::Relaxed) + 1).to_string())
}

/// A query parameter as a number.
fn number(request: &Request, name: &str) -> Option<u64> {
    request.query_param(name)?.parse().ok()
}
