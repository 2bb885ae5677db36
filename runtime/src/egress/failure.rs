//! What went wrong outside, as the error codes of `wasi:http` that a guest sees.

use std::error::Error as _;
use std::io;

use wasmtime_wasi_http::Error;

/// A connection that could not be made.
pub(super) fn of_connect(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Error::ConnectionRefused,
        io::ErrorKind::TimedOut => Error::ConnectionTimeout,
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable => Error::DestinationIpUnroutable,
        _ => {
            tracing::debug!(%error, "an outgoing connection failed");
            Error::DestinationUnavailable
        }
    }
}

/// A TLS handshake that failed.
pub(super) fn of_tls(error: &io::Error) -> Error {
    tracing::debug!(%error, "an outgoing TLS handshake failed");
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented) => {
            Error::TlsCertificateError
        }
        Some(rustls::Error::AlertReceived(alert)) => Error::TlsAlertReceived {
            alert_id: Some(u8::from(*alert)),
            alert_message: Some(format!("{alert:?}")),
        },
        _ => Error::TlsProtocolError,
    }
}

/// A request or response that broke off.
pub(super) fn of_hyper(error: &hyper::Error) -> Error {
    tracing::debug!(%error, "an outgoing request failed");
    if error.is_parse_too_large() {
        return Error::HttpResponseHeaderSectionSize(None);
    }
    if error.is_incomplete_message() {
        return Error::HttpResponseIncomplete;
    }
    if error.is_timeout() {
        return Error::ConnectionReadTimeout;
    }
    if error.is_canceled() || error.is_closed() || error.is_body_write_aborted() {
        return Error::ConnectionTerminated;
    }
    // The guest's own body was longer or shorter than it had said.
    if let Some(Error::HttpRequestBodySize(size)) = error.source().and_then(|source| source.downcast_ref()) {
        return Error::HttpRequestBodySize(*size);
    }
    match error.source().and_then(|source| source.downcast_ref::<io::Error>()) {
        // Only rustls reports what the other side's TLS did wrong this way.
        Some(error) if error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) => of_tls(error),
        Some(error) if error.kind() == io::ErrorKind::UnexpectedEof => Error::HttpResponseIncomplete,
        Some(error) if error.kind() == io::ErrorKind::InvalidData => Error::HttpProtocolError,
        Some(_) => Error::ConnectionTerminated,
        None => Error::HttpProtocolError,
    }
}
