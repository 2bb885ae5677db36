//! A response as the handler makes it, and what else can become one.

use crate::Headers;

/// One response. A status below 400 commits what a command has written; 400 and above drops it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// 100 to 599; anything else becomes 500.
    pub status: u16,
    /// In the order they are sent. `content-length` is added.
    pub headers: Headers,
    /// May be empty.
    pub body: Vec<u8>,
}

impl Response {
    /// An empty response with this status.
    #[must_use]
    pub const fn status(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new() }
    }

    /// 200 with a text.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self::bytes("text/plain; charset=utf-8", text.into().into_bytes())
    }

    /// 200 with bytes of this content type.
    #[must_use]
    pub fn bytes(content_type: &str, body: Vec<u8>) -> Self {
        Self { status: 200, headers: vec![("content-type".into(), content_type.as_bytes().to_vec())], body }
    }

    /// 200 with a value as JSON; 500 where the value can't be one (a map whose keys are no strings).
    #[cfg(feature = "json")]
    #[must_use]
    pub fn json<T: serde::Serialize>(value: &T) -> Self {
        match serde_json::to_vec(value) {
            Ok(body) => Self::bytes("application/json", body),
            Err(error) => Self::error(500, &format!("the answer can't be written as JSON: {error}")),
        }
    }

    /// A failure with its reason as text.
    #[must_use]
    pub fn error(status: u16, reason: &str) -> Self {
        Self::text(format!("{reason}\n")).with_status(status)
    }

    /// The same with another status.
    #[must_use]
    pub fn with_status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// The same with one more header.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }
}

/// What a handler may return: a [`Response`], or a `Result` of such things, so that `?` works in it.
pub trait IntoResponse {
    /// The response to send.
    fn into_response(self) -> Response;
}

impl IntoResponse for Response {
    fn into_response(self) -> Response {
        self
    }
}

impl<T: IntoResponse, E: IntoResponse> IntoResponse for Result<T, E> {
    fn into_response(self) -> Response {
        match self {
            Ok(value) => value.into_response(),
            Err(error) => error.into_response(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{IntoResponse, Response};

    #[test]
    fn an_error_of_a_handler_becomes_the_response() {
        let failed: Result<Response, Response> = Err(Response::error(409, "overdrawn"));
        let response = failed.into_response();
        assert_eq!((response.status, response.body.as_slice()), (409, &b"overdrawn\n"[..]));
    }
}
