//! From the component's export to the handler and back.

use wasip2::http::types::{
    Fields, IncomingRequest, Method, OutgoingBody, OutgoingResponse, ResponseOutparam,
};

use crate::{Headers, IntoResponse, Request, Response, panic, stream};

/// A function that [`export!`](crate::export) takes.
pub trait Handler {
    /// Answers one request.
    fn handle(&self, request: Request) -> Response;
}

impl<F: Fn(Request) -> R, R: IntoResponse> Handler for F {
    fn handle(&self, request: Request) -> Response {
        self(request).into_response()
    }
}

/// Makes a function the component's request handler: `hvm_guest::export!(handle);`. Once in a crate. With
/// `hvm_guest::export!(handle, migrate = migrate);` the second function brings the state of an older version into the
/// layout of this one, see [`migration`](crate::migration).
#[macro_export]
macro_rules! export {
    ($handler:path, migrate = $migrate:path) => {
        fn hvm_guest_route(request: $crate::Request) -> $crate::Response {
            $crate::migration::route(request, &$handler, $migrate)
        }

        $crate::export!(hvm_guest_route);
    };
    ($handler:path) => {
        struct HvmGuestComponent;

        impl $crate::wasip2::exports::http::incoming_handler::Guest for HvmGuestComponent {
            fn handle(
                request: $crate::wasip2::http::types::IncomingRequest,
                out: $crate::wasip2::http::types::ResponseOutparam,
            ) {
                $crate::serve(&$handler, request, out);
            }
        }

        $crate::wasip2::http::proxy::export!(HvmGuestComponent with_types_in $crate::wasip2);
    };
}

/// Reads the request, runs the handler, sends the response.
pub fn serve(handler: &impl Handler, request: IncomingRequest, out: ResponseOutparam) {
    panic::report_to_stderr();
    let response = match receive(request) {
        Ok(request) => handler.handle(request),
        Err(reason) => Response::error(400, &format!("the request could not be read: {reason}")),
    };
    send(response, out);
}

pub(crate) fn method_name(method: Method) -> String {
    match method {
        Method::Get => "GET".to_owned(),
        Method::Head => "HEAD".to_owned(),
        Method::Post => "POST".to_owned(),
        Method::Put => "PUT".to_owned(),
        Method::Delete => "DELETE".to_owned(),
        Method::Connect => "CONNECT".to_owned(),
        Method::Options => "OPTIONS".to_owned(),
        Method::Trace => "TRACE".to_owned(),
        Method::Patch => "PATCH".to_owned(),
        Method::Other(name) => name,
    }
}

fn receive(incoming: IncomingRequest) -> Result<Request, String> {
    let target = incoming.path_with_query().unwrap_or_else(|| "/".to_owned());
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let headers: Headers = incoming.headers().entries();
    let body = incoming.consume().map_err(|()| "its body was taken already".to_owned())?;
    let body_stream = body.stream().map_err(|()| "its body was read already".to_owned())?;
    let bytes = stream::read_all(&body_stream)?;
    Ok(Request {
        method: method_name(incoming.method()),
        path: path.to_owned(),
        query: query.to_owned(),
        headers,
        body: bytes,
    })
}

/// 204 and 304 have no body (RFC 9110, 15.3.5 and 15.4.5), so they get no length either.
fn has_body(status: u16) -> bool {
    !matches!(status, 100..=199 | 204 | 304)
}

/// The headers without those that the host refuses (forbidden or malformed): the answer still leaves.
fn accepted(headers: &Headers) -> Fields {
    let fields = Fields::new();
    for (name, value) in headers {
        let _refused = fields.append(name, value);
    }
    fields
}

fn send(response: Response, out: ResponseOutparam) {
    let Response { status, mut headers, body } = response;
    if has_body(status) && !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-length")) {
        headers.push(("content-length".to_owned(), body.len().to_string().into_bytes()));
    }
    let outgoing = OutgoingResponse::new(Fields::from_list(&headers).unwrap_or_else(|_| accepted(&headers)));
    // A response is made with 200.
    if status != 200 && outgoing.set_status_code(status).is_err() {
        let _valid = outgoing.set_status_code(500);
    }
    let outgoing_body = outgoing.body();
    ResponseOutparam::set(out, Ok(outgoing));
    let Ok(outgoing_body) = outgoing_body else { return };
    if has_body(status) && !body.is_empty() {
        let Ok(body_stream) = outgoing_body.write() else { return };
        // The receiver is gone: nobody is left to be told, and the unfinished body says it to the host.
        let Ok(()) = stream::write_all(&body_stream, &body) else { return };
    }
    let _receiver_gone = OutgoingBody::finish(outgoing_body, None);
}
