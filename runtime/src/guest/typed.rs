//! One call of a component's `hvm:app/handler`, and HTTP requests as such calls for components that handle no HTTP.

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Method, Response, StatusCode, request, response};

use self::bindings::exports::hvm::app::handler;
use super::Instance;
use super::dump::stopped;
use crate::{CallKind, Failure, FailureKind, RequestError};

pub(crate) use bindings::{Typed, TypedIndices};

/// The host side of `hvm:app/typed`, generated.
mod bindings {
    #![allow(missing_docs, unreachable_pub, reason = "generated code")]
    #![allow(clippy::allow_attributes_without_reason, reason = "generated code")]

    wasmtime::component::bindgen!({
        path: "../guest-sdk/wit",
        world: "hvm:app/typed",
        exports: { default: async },
        require_store_data_send: true,
    });
}

/// What a guest answered to a call.
pub(crate) type Answered = Result<Bytes, Failure>;

impl Instance {
    /// Calls the guest. The answer is copied out of its memory, whose limit bounds it.
    pub(crate) async fn call(
        &mut self,
        kind: CallKind,
        name: &str,
        payload: &[u8],
    ) -> Result<Answered, RequestError> {
        let Self { store, typed: Some(typed), .. } = self else { return Err(RequestError::NoTypedHandler) };
        let limit = self.answer_limit;
        let handler = typed.hvm_app_handler();
        let called = match kind {
            CallKind::Command => handler.call_command(&mut **store, name, payload).await,
            CallKind::Query => handler.call_query(&mut **store, name, payload).await,
        };
        match called {
            Ok(Ok(answer)) if answer.len() as u64 > limit.0 => Err(RequestError::ResponseTooLarge { limit }),
            Ok(Ok(answer)) => Ok(Ok(answer.into())),
            Ok(Err(failure)) if failure.message.len() as u64 > limit.0 => {
                Err(RequestError::ResponseTooLarge { limit })
            }
            Ok(Err(failure)) => Ok(Err(failure.into())),
            Err(error) => Err(RequestError::Trapped { trap: stopped(store, error) }),
        }
    }

    /// Answers an HTTP request by a call: POST is a command with the body as payload, GET and HEAD are queries with the
    /// URL's query as payload, and the path without its first `/` is the name.
    pub(crate) async fn call_by_http(
        &mut self,
        head: &request::Parts,
        body: Bytes,
    ) -> Result<(response::Parts, Bytes), RequestError> {
        let name = head.uri.path().trim_start_matches('/');
        let query = head.uri.query().unwrap_or_default();
        let answered = match head.method {
            Method::POST => self.call(CallKind::Command, name, &body).await?,
            Method::GET | Method::HEAD => self.call(CallKind::Query, name, query.as_bytes()).await?,
            _ => return Ok(method_not_allowed()),
        };
        Ok(match answered {
            Ok(bytes) => answer(StatusCode::OK, "application/octet-stream", bytes),
            Err(Failure { kind, message }) => {
                answer(kind.status(), "text/plain; charset=utf-8", message.into())
            }
        })
    }
}

fn answer(status: StatusCode, content_type: &'static str, body: Bytes) -> (response::Parts, Bytes) {
    let (mut head, ()) = Response::new(()).into_parts();
    head.status = status;
    head.headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    (head, body)
}

fn method_not_allowed() -> (response::Parts, Bytes) {
    let reason = "send commands by POST and queries by GET\n";
    let (mut head, body) = answer(
        StatusCode::METHOD_NOT_ALLOWED,
        "text/plain; charset=utf-8",
        Bytes::from_static(reason.as_bytes()),
    );
    head.headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD, POST"));
    (head, body)
}

impl From<handler::Failure> for Failure {
    fn from(failure: handler::Failure) -> Self {
        let kind = match failure.kind {
            handler::FailureKind::Invalid => FailureKind::Invalid,
            handler::FailureKind::Denied => FailureKind::Denied,
            handler::FailureKind::NotFound => FailureKind::NotFound,
            handler::FailureKind::Conflict => FailureKind::Conflict,
            handler::FailureKind::Unavailable => FailureKind::Unavailable,
            handler::FailureKind::Internal => FailureKind::Internal,
        };
        Self { kind, message: failure.message }
    }
}
