//! Greed that is not for memory of its own: what a guest makes its host keep, or do at once.

use hvm_guest::{Request, Response};
use wasip2::clocks::monotonic_clock;
use wasip2::http::types::{Fields, Method, OutgoingRequest};
use wasip2::io::poll;

use crate::number;

const FIELD_BYTES: usize = 1000;
const FIELDS: usize = 24;
const PATH_BYTES: usize = 8000;

pub fn answer(action: &str, request: &Request) -> Option<Response> {
    let size = || number(request, "n").and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
    Some(match action {
        "hoard" => hoard(&request.query_param("what").unwrap_or_default(), size()),
        "random-bytes" => {
            Response::text(wasip2::random::random::get_random_bytes(size() as u64).len().to_string())
        }
        "random-tera" => Response::text(wasip2::random::random::get_random_bytes(1 << 40).len().to_string()),
        "sleep-for-ever" => {
            monotonic_clock::subscribe_duration(u64::MAX).block();
            Response::text("awake")
        }
        "poll" => polled(size()),
        "log-for-ever" => loop {
            hvm_guest::log::write(hvm_guest::log::Level::Info, "probe", &"line\n".repeat(1000));
        },
        "header" => header(request, size()),
        "long-request" => long_request(size()),
        _ => return None,
    })
}

/// Keeps `n` host resources of a kind that are as large as they can be, until it answers.
fn hoard(what: &str, n: usize) -> Response {
    let mut kept = 0;
    for _ in 0..n {
        match what {
            "fields" => std::mem::forget(fields()),
            "requests" => {
                let request = OutgoingRequest::new(fields());
                let path = format!("/{}", "x".repeat(PATH_BYTES));
                if request.set_path_with_query(Some(&path)).is_err() {
                    return Response::error(500, "a path was refused");
                }
                std::mem::forget(request);
            }
            "bodies" => {
                let request = OutgoingRequest::new(Fields::new());
                let Ok(body) = request.body() else { return Response::error(500, "a body was refused") };
                let Ok(stream) = body.write() else { return Response::error(500, "a stream was refused") };
                while let Ok(room @ 1..) = stream.check_write() {
                    let piece = vec![b'b'; usize::try_from(room).unwrap_or(0)];
                    if stream.write(&piece).is_err() {
                        break;
                    }
                }
                std::mem::forget((request, body, stream));
            }
            "pollables" => std::mem::forget(monotonic_clock::subscribe_duration(u64::MAX)),
            _ => return Response::error(404, "there is no such hoard"),
        }
        kept += 1;
    }
    Response::text(kept.to_string())
}

fn fields() -> Fields {
    let fields = Fields::new();
    for number in 0..FIELDS {
        let _refused = fields.append(&format!("x-{number}"), &[b'x'; FIELD_BYTES]);
    }
    fields
}

/// Polls the same two handles `n` times each in one call.
fn polled(n: usize) -> Response {
    let (never, now) =
        (monotonic_clock::subscribe_duration(u64::MAX), monotonic_clock::subscribe_duration(0));
    let handles: Vec<_> = std::iter::repeat_n([&never, &now], n).flatten().collect();
    Response::text(poll::poll(&handles).len().to_string())
}

/// Whether the host takes a header `name` with `value`, or with a value of `n` bytes: `taken`, or why not.
fn header(request: &Request, n: usize) -> Response {
    let name = request.query_param("name").unwrap_or_default();
    let value = request.query_param("value").map_or_else(|| vec![b'x'; n], String::into_bytes);
    Response::text(match Fields::new().append(&name, &value) {
        Ok(()) => "taken".to_owned(),
        Err(error) => format!("{error:?}"),
    })
}

/// Which parts of an outgoing request of `n` bytes each the host takes.
fn long_request(n: usize) -> Response {
    let request = OutgoingRequest::new(Fields::new());
    let long = "x".repeat(n);
    Response::text(format!(
        "method {} path {} authority {}",
        request.set_method(&Method::Other(long.clone())).is_ok(),
        request.set_path_with_query(Some(&format!("/{long}"))).is_ok(),
        request.set_authority(Some(&long)).is_ok(),
    ))
}
