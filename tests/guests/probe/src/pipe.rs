//! `/pipe`: a body that passes through a guest which never holds more than a piece of it.

use wasip2::http::types::{
    Fields, IncomingBody, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam,
};
use wasip2::io::streams::{InputStream, OutputStream, StreamError};

const PIECE_BYTES: u64 = 64 * 1024;

pub fn answer(request: IncomingRequest, out: ResponseOutparam) {
    let fields = Fields::new();
    if fields.append("trailer", b"x-sum").is_err() {
        return;
    }
    let response = OutgoingResponse::new(fields);
    let (Ok(body), Ok(incoming)) = (response.body(), request.consume()) else { return };
    ResponseOutparam::set(out, Ok(response));
    let (Ok(to), Ok(from)) = (body.write(), incoming.stream()) else { return };
    let whole = copy(&from, &to);
    drop((from, to));
    let trailers = IncomingBody::finish(incoming);
    trailers.subscribe().block();
    let trailers = trailers.get().and_then(Result::ok).and_then(Result::ok).flatten();
    // Those of a request can't be changed, so they can't be sent on as they are.
    let trailers = trailers.and_then(|fields| Fields::from_list(&fields.entries()).ok());
    if whole {
        let _refused = OutgoingBody::finish(body, trailers);
    }
}

/// Whether the body came to its end.
fn copy(from: &InputStream, to: &OutputStream) -> bool {
    loop {
        let piece = match from.blocking_read(PIECE_BYTES) {
            Ok(piece) => piece,
            Err(StreamError::Closed) => return true,
            Err(StreamError::LastOperationFailed(_)) => return false,
        };
        let mut left = &piece[..];
        while !left.is_empty() {
            to.subscribe().block();
            let Ok(room) = to.check_write() else { return false };
            let now = left.len().min(usize::try_from(room).unwrap_or(usize::MAX));
            if to.write(&left[..now]).is_err() {
                return false;
            }
            left = &left[now..];
        }
    }
}
