//! One request out and its response back.

use std::time::Duration;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::{PathAndQuery, Uri};
use http::{Method, Request, Response, StatusCode, Version};
use http_body_util::BodyExt;
use hvm_types::Origin;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, timeout};
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody};

use super::failure;
use super::policy::EgressPolicy;
use super::stalling_body::StallingBody;

/// What a guest waits where it sets no time itself.
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const DEFAULT_FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(30);
const DEFAULT_BETWEEN_BYTES_TIMEOUT: Duration = Duration::from_secs(30);
/// What it waits at most and at least, whatever it sets.
const MAX_TIMEOUT: Duration = Duration::from_secs(300);
const MIN_TIMEOUT: Duration = Duration::from_millis(1);

/// Longest path and query.
const MAX_TARGET_BYTES: usize = 8 << 10;
/// Longest names and values of a request's headers together.
const MAX_REQUEST_HEADER_BYTES: usize = 64 << 10;
/// Longest head of a response, and what is read ahead of a body.
const MAX_RESPONSE_HEAD_BYTES: usize = 64 << 10;
const MAX_RESPONSE_HEADERS: usize = 128;

/// Headers that concern one connection (RFC 9110, section 7.6.1) and `host`, which follows from the URI.
const CONNECTION_HEADERS: [HeaderName; 11] = [
    header::CONNECTION,
    header::HOST,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("http2-settings"),
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// What moves the bytes of a response's body: it must be polled, for example as a task of its own, until
/// the body is read; dropping it closes the connection.
pub type ConnectionDriver = Box<dyn Future<Output = Result<(), Error>> + Send>;

/// Sends `request` where `policy` permits it. Returns with the response's head; the body follows as far as
/// it is read and the driver is polled.
///
/// # Errors
/// The error codes of `wasi:http`, among them: `HttpRequestDenied` for an origin that is not granted,
/// `DestinationIpProhibited` for a name that leads to none but addresses within, `ConnectionLimitReached`
/// for too many connections at once, `ConnectionTimeout` and `ConnectionReadTimeout`.
pub async fn send(
    policy: &EgressPolicy,
    request: Request<WasiBody>,
    options: Option<RequestOptions>,
) -> Result<(Response<WasiBody>, ConnectionDriver), Error> {
    let (origin, request) = prepare(policy, request)?;
    let timeouts = Timeouts::of(options.unwrap_or_default());
    let permit = policy.admit().ok_or(Error::ConnectionLimitReached)?;
    let deadline = Instant::now() + timeouts.connect;
    let stream = super::connect::connect(policy, &origin, deadline).await?;
    let (mut sender, mut connection) = http1::Builder::new()
        .max_buf_size(MAX_RESPONSE_HEAD_BYTES)
        .max_headers(MAX_RESPONSE_HEADERS)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| failure::of_hyper(&error))?;
    let mut ended = false;
    let exchange = async {
        let mut answer = Box::pin(sender.send_request(request));
        tokio::select! {
            biased;
            answered = &mut answer => answered,
            closed = &mut connection => {
                ended = true;
                // It may end with the response's last byte: then the answer is there.
                match closed {
                    Ok(()) => answer.await,
                    Err(error) => Err(error),
                }
            }
        }
    };
    let response = timeout(timeouts.first_byte, exchange)
        .await
        .map_err(|_| Error::ConnectionReadTimeout)?
        .map_err(|error| failure::of_hyper(&error))?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Err(Error::HttpUpgradeFailed);
    }
    // The connection's own bound is that of its buffer, which may hold twice as much for a moment.
    let bytes = size_of_headers(response.headers());
    if bytes > MAX_RESPONSE_HEAD_BYTES {
        return Err(Error::HttpResponseHeaderSectionSize(u32::try_from(bytes).ok()));
    }
    let driver = async move {
        let _permit = permit;
        if ended {
            return Ok(());
        }
        connection.await.map_err(|error| failure::of_hyper(&error))
    };
    let response = response.map(|body| StallingBody::new(body, timeouts.between_bytes).boxed_unsync());
    Ok((response, Box::new(driver)))
}

/// Checks a request against the policy and makes it what goes over the connection.
fn prepare(
    policy: &EgressPolicy,
    mut request: Request<WasiBody>,
) -> Result<(Origin, Request<WasiBody>), Error> {
    let uri = request.uri();
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(Error::HttpRequestUriInvalid);
    };
    let origin: Origin =
        format!("{scheme}://{authority}").parse().map_err(|_| Error::HttpRequestUriInvalid)?;
    if !policy.permits(&origin) {
        return Err(Error::HttpRequestDenied);
    }
    // A tunnel would lead past every check.
    if request.method() == Method::CONNECT {
        return Err(Error::HttpRequestMethodInvalid);
    }
    let target = uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    if target.as_str().len() > MAX_TARGET_BYTES {
        return Err(Error::HttpRequestUriTooLong);
    }
    let host = HeaderValue::from_str(&authority_of(&origin)).map_err(|_| Error::HttpRequestUriInvalid)?;
    clean(request.headers_mut());
    let bytes = size_of_headers(request.headers());
    if bytes > MAX_REQUEST_HEADER_BYTES {
        return Err(Error::HttpRequestHeaderSectionSize(u32::try_from(bytes).ok()));
    }
    request.headers_mut().insert(header::HOST, host);
    *request.uri_mut() = Uri::from(target);
    *request.version_mut() = Version::HTTP_11;
    Ok((origin, request))
}

/// The origin without its scheme: what `host` holds.
fn authority_of(origin: &Origin) -> String {
    let text = origin.to_string();
    text.split_once("://").map(|(_, authority)| authority.to_owned()).unwrap_or(text)
}

/// Names and values together.
fn size_of_headers(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum()
}

/// Removes what concerns one connection only, named here or by the `connection` header.
fn clean(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&CONNECTION_HEADERS) {
        headers.remove(name);
    }
}

/// The guest's times, clamped.
struct Timeouts {
    connect: Duration,
    first_byte: Duration,
    between_bytes: Duration,
}

impl Timeouts {
    fn of(options: RequestOptions) -> Self {
        let clamped =
            |set: Option<Duration>, default: Duration| set.unwrap_or(default).clamp(MIN_TIMEOUT, MAX_TIMEOUT);
        Self {
            connect: clamped(options.connect_timeout, DEFAULT_CONNECT_TIMEOUT),
            first_byte: clamped(options.first_byte_timeout, DEFAULT_FIRST_BYTE_TIMEOUT),
            between_bytes: clamped(options.between_bytes_timeout, DEFAULT_BETWEEN_BYTES_TIMEOUT),
        }
    }
}
