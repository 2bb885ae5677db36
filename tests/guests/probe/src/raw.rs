//! Answers that are not what HTTP expects, made on `wasi:http` itself.

use wasip2::clocks::monotonic_clock;
use wasip2::http::types::{Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam};
use wasip2::io::streams::OutputStream;

use crate::{fault, pipe};

/// What is promised by `half`; it sends the first half.
const PROMISED_BYTES: usize = 1000;
/// Written at a time.
const CHUNK_BYTES: usize = 64 * 1024;
const BYTES_PER_MB: usize = 1_000_000;
/// What `big` sends unless told.
const BIG_MB: usize = 100;

/// A way to answer badly.
pub enum Misbehaviour {
    /// Returns without an answer.
    Silent,
    /// Waits without end before the answer, using no processor.
    Hang,
    /// Sends half of what it promised, then does this.
    Half(Then),
    /// Sends this many bytes.
    Big(usize),
    /// Answers with this status and nothing else.
    Status(u16),
    /// Says that this many bytes follow, and has no body.
    Promise(usize),
    /// Sends the request's body back while it arrives, and its trailers after it.
    Pipe(IncomingRequest),
}

/// What follows half an answer.
pub enum Then {
    Trap,
    /// Returns without finishing the body.
    Stop,
    /// Finishes the body too early.
    Finish,
    Hang,
    Loop,
}

impl Misbehaviour {
    /// What the path asks for; `None` for everything that is answered in the ordinary way.
    pub fn of(request: IncomingRequest) -> Result<Self, IncomingRequest> {
        if request.path_with_query().is_some_and(|target| target.split('?').next() == Some("/pipe")) {
            return Ok(Self::Pipe(request));
        }
        Self::named(&request).ok_or(request)
    }

    fn named(request: &IncomingRequest) -> Option<Self> {
        let target = request.path_with_query()?;
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let value = |name: &str| {
            query
                .split('&')
                .find_map(|pair| pair.split_once('=').filter(|(key, _)| *key == name))
                .map(|(_, value)| value)
        };
        Some(match path {
            "/silent" => Self::Silent,
            "/hang" => Self::Hang,
            "/hang-body" => Self::Half(Then::Hang),
            "/half" => Self::Half(match value("then") {
                Some("stop") => Then::Stop,
                Some("finish") => Then::Finish,
                Some("hang") => Then::Hang,
                Some("loop") => Then::Loop,
                _ => Then::Trap,
            }),
            "/big" => {
                let mb = value("mb").and_then(|mb| mb.parse().ok()).unwrap_or(BIG_MB);
                Self::Big(mb.saturating_mul(BYTES_PER_MB))
            }
            "/status" => Self::Status(value("code")?.parse().ok()?),
            "/promise" => Self::Promise(value("bytes")?.parse().ok()?),
            _ => return None,
        })
    }

    pub fn answer(self, out: ResponseOutparam) {
        match self {
            Self::Silent => drop(out),
            Self::Hang => hang(),
            Self::Half(then) => half(then, out),
            Self::Big(bytes) => big(bytes, out),
            Self::Status(code) => {
                let response = OutgoingResponse::new(Fields::new());
                if response.set_status_code(code).is_ok() {
                    ResponseOutparam::set(out, Ok(response));
                }
            }
            Self::Promise(bytes) => {
                let fields = Fields::new();
                if fields.append("content-length", bytes.to_string().as_bytes()).is_ok() {
                    ResponseOutparam::set(out, Ok(OutgoingResponse::new(fields)));
                }
            }
            Self::Pipe(request) => pipe::answer(request, out),
        }
    }
}

/// Waits on a pollable that is never ready within anybody's patience.
fn hang() -> ! {
    loop {
        monotonic_clock::subscribe_duration(u64::MAX / 4).block();
    }
}

/// Sets an answer of this length; its body and the body's stream are open.
fn begin(length: Option<usize>, out: ResponseOutparam) -> Option<(OutgoingBody, OutputStream)> {
    let fields = Fields::new();
    if let Some(length) = length {
        fields.append("content-length", length.to_string().as_bytes()).ok()?;
    }
    let response = OutgoingResponse::new(fields);
    let body = response.body().ok()?;
    let stream = body.write().ok()?;
    ResponseOutparam::set(out, Ok(response));
    Some((body, stream))
}

fn half(then: Then, out: ResponseOutparam) {
    let Some((body, stream)) = begin(Some(PROMISED_BYTES), out) else { return };
    if stream.blocking_write_and_flush(&[b'h'; PROMISED_BYTES / 2]).is_err() {
        return;
    }
    match then {
        Then::Trap => fault::trap("", 0),
        Then::Stop => {}
        Then::Finish => {
            drop(stream);
            let _refused = OutgoingBody::finish(body, None);
        }
        Then::Hang => hang(),
        Then::Loop => fault::spin_forever(),
    }
}

fn big(mut bytes: usize, out: ResponseOutparam) {
    let Some((body, stream)) = begin(None, out) else { return };
    let chunk = vec![b'b'; CHUNK_BYTES];
    while bytes > 0 {
        let permitted = match stream.check_write() {
            Ok(0) => {
                stream.subscribe().block();
                continue;
            }
            Ok(permitted) => usize::try_from(permitted).unwrap_or(usize::MAX),
            // The host takes no more.
            Err(_) => return,
        };
        let now = permitted.min(bytes).min(CHUNK_BYTES);
        if stream.write(&chunk[..now]).is_err() {
            return;
        }
        bytes -= now;
    }
    drop(stream);
    let _refused = OutgoingBody::finish(body, None);
}
