//! Errors of host functions as responses: a handler may end with `?` on each of them.

use crate::{IntoResponse, Response, config, http, kv};

impl IntoResponse for kv::Error {
    fn into_response(self) -> Response {
        Response::error(500, &format!("the state is not usable: {self}"))
    }
}

impl IntoResponse for config::Error {
    fn into_response(self) -> Response {
        Response::error(500, &self.to_string())
    }
}

impl IntoResponse for http::Error {
    fn into_response(self) -> Response {
        Response::error(502, &self.to_string())
    }
}

impl From<kv::Error> for Response {
    fn from(error: kv::Error) -> Self {
        error.into_response()
    }
}

impl From<config::Error> for Response {
    fn from(error: config::Error) -> Self {
        error.into_response()
    }
}

impl From<http::Error> for Response {
    fn from(error: http::Error) -> Self {
        error.into_response()
    }
}
