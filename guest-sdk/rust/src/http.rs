//! Requests to other servers. Capability `outgoing-http`; the deployment lists the origins.
//!
//! A command may not call out unless the deployment grants `http_in_commands`, because a call can't be taken back when
//! the command is repeated.

use std::fmt;
use std::time::Duration;

use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    Fields, IncomingResponse, Method, OutgoingBody, OutgoingRequest, RequestOptions, Scheme,
};

use crate::{Headers, Response, stream};

/// Why a call got no response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// The URL that was called.
    pub url: String,
    /// The host's words.
    pub reason: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no response from {}: {}", self.url, self.reason)
    }
}

impl std::error::Error for Error {}

/// A request to another server.
#[derive(Debug, Clone)]
pub struct Call {
    method: String,
    url: String,
    headers: Headers,
    body: Vec<u8>,
    timeout: Option<Duration>,
}

/// GET of a URL.
///
/// # Errors
/// The URL is malformed or not allowed, or there was no response.
pub fn get(url: &str) -> Result<Response, Error> {
    Call::new("GET", url).send()
}

impl Call {
    /// A call of this method and URL (`https://host/path?query`).
    #[must_use]
    pub fn new(method: &str, url: &str) -> Self {
        Self {
            method: method.to_owned(),
            url: url.to_owned(),
            headers: Vec::new(),
            body: Vec::new(),
            timeout: None,
        }
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// How long to wait for the connection, and again for the first byte. The partition's deadline holds besides.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sends it and waits for the whole response, of whatever status.
    ///
    /// # Errors
    /// The URL is malformed or not allowed, or there was no response.
    pub fn send(self) -> Result<Response, Error> {
        let url = self.url.clone();
        self.exchange().map_err(|reason| Error { url, reason })
    }

    fn exchange(self) -> Result<Response, String> {
        let (request, options) = self.outgoing()?;
        let outgoing_body = request.body().map_err(|()| "the body was taken already".to_owned())?;
        let pending = outgoing_handler::handle(request, options).map_err(|code| code.to_string())?;
        if !self.body.is_empty() {
            let body_stream =
                outgoing_body.write().map_err(|()| "the body was written already".to_owned())?;
            stream::write_all(&body_stream, &self.body)?;
        }
        OutgoingBody::finish(outgoing_body, None).map_err(|code| code.to_string())?;
        pending.subscribe().block();
        let answer = pending.get().ok_or("the host woke the call without a result")?;
        receive(
            &answer
                .map_err(|()| "the result was taken already".to_owned())?
                .map_err(|code| code.to_string())?,
        )
    }

    fn outgoing(&self) -> Result<(OutgoingRequest, Option<RequestOptions>), String> {
        let (scheme, authority, target) = split(&self.url)?;
        let fields = Fields::new();
        for (name, value) in &self.headers {
            fields.append(name, value).map_err(|error| format!("header {name}: {error}"))?;
        }
        if !self.body.is_empty() {
            let length = self.body.len().to_string();
            fields
                .append("content-length", length.as_bytes())
                .map_err(|error| format!("content-length: {error}"))?;
        }
        let request = OutgoingRequest::new(fields);
        request.set_method(&method(&self.method)).map_err(|()| format!("{} is no method", self.method))?;
        request.set_scheme(Some(&scheme)).map_err(|()| "the scheme is malformed".to_owned())?;
        request.set_authority(Some(authority)).map_err(|()| format!("{authority} is no host"))?;
        request.set_path_with_query(Some(&target)).map_err(|()| format!("{target} is no path"))?;
        let options = self.timeout.map(|timeout| {
            let nanoseconds = Some(u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX));
            let options = RequestOptions::new();
            // A host without timeouts of its own leaves it to the deadline.
            let _unsupported = options.set_connect_timeout(nanoseconds);
            let _unsupported = options.set_first_byte_timeout(nanoseconds);
            options
        });
        Ok((request, options))
    }
}

fn method(name: &str) -> Method {
    match name {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "POST" => Method::Post,
        "PUT" => Method::Put,
        "DELETE" => Method::Delete,
        "CONNECT" => Method::Connect,
        "OPTIONS" => Method::Options,
        "TRACE" => Method::Trace,
        "PATCH" => Method::Patch,
        other => Method::Other(other.to_owned()),
    }
}

/// Scheme, authority, and path with query.
fn split(url: &str) -> Result<(Scheme, &str, String), String> {
    let (scheme, rest) = match url.split_once("://") {
        Some(("https", rest)) => (Scheme::Https, rest),
        Some(("http", rest)) => (Scheme::Http, rest),
        _ => return Err("a URL begins with http:// or https://".to_owned()),
    };
    let rest = rest.split('#').next().unwrap_or(rest);
    let at = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, target) = rest.split_at(at);
    if authority.is_empty() {
        return Err("the URL names no host".to_owned());
    }
    let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
    Ok((scheme, authority, target))
}

fn receive(incoming: &IncomingResponse) -> Result<Response, String> {
    let body = incoming.consume().map_err(|()| "the body was taken already".to_owned())?;
    let body_stream = body.stream().map_err(|()| "the body was read already".to_owned())?;
    let bytes = stream::read_all(&body_stream)?;
    Ok(Response { status: incoming.status(), headers: incoming.headers().entries(), body: bytes })
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn a_url_is_cut_into_authority_and_target() {
        let (_, authority, target) = split("http://127.0.0.1:8080?x=1#top").expect("a URL");
        assert_eq!((authority, target.as_str()), ("127.0.0.1:8080", "/?x=1"));
        let (_, authority, target) = split("https://rates.example/eur").expect("a URL");
        assert_eq!((authority, target.as_str()), ("rates.example", "/eur"));
        assert!(split("rates.example/eur").is_err() && split("http:///eur").is_err());
    }
}
