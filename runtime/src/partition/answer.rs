//! A command and its answer in their two forms, HTTP and typed call. What is stored with an idempotency key has the
//! form of a response in both: a call's answer is one of status 200 without headers.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, request, response};
use hvm_types::{RequestOutcome, Sequence};

use super::job::{Asked, JobBody, Reply};
use super::sequence;
use crate::guest::Answered;
use crate::observed::Topic;
use crate::state::StoredResponse;
use crate::{Call, RequestError, ResponseBody};

/// A command, with all of its body.
pub(super) enum Question {
    Http(request::Parts, Bytes),
    Call(Call),
}

/// A guest's whole answer to a command.
pub(super) enum Answer {
    Http(response::Parts, Bytes),
    Call(Answered),
}

/// Which of the two forms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Http,
    Call,
}

impl Question {
    pub(super) fn of(asked: Asked) -> Self {
        match asked {
            Asked::Http { head, body: JobBody::Whole(body) } => Self::Http(head, body),
            // Bodies of commands are read before their turn comes.
            Asked::Http { head, body: JobBody::Arriving(_) } => Self::Http(head, Bytes::new()),
            Asked::Call(call) => Self::Call(call),
        }
    }

    /// What of it may be shown.
    pub(super) fn topic(&self) -> Topic {
        match self {
            Self::Http(head, _) => Topic::Http(head.method.clone(), head.uri.clone()),
            Self::Call(call) => Topic::Call(call.kind, call.name.clone()),
        }
    }

    pub(super) const fn form(&self) -> Form {
        match self {
            Self::Http(..) => Form::Http,
            Self::Call(_) => Form::Call,
        }
    }
}

impl Answer {
    /// The HTTP status, where it has one.
    pub(super) fn status(&self) -> Option<u16> {
        match self {
            Self::Http(head, _) => Some(head.status.as_u16()),
            Self::Call(_) => None,
        }
    }

    pub(super) const fn form(&self) -> Form {
        match self {
            Self::Http(..) => Form::Http,
            Self::Call(_) => Form::Call,
        }
    }

    /// Whether the guest says no, so that nothing of it is kept.
    pub(super) fn is_rejection(&self) -> bool {
        match self {
            Self::Http(head, _) => head.status >= StatusCode::BAD_REQUEST,
            Self::Call(answered) => answered.is_err(),
        }
    }

    /// How it counts.
    pub(super) fn outcome(&self) -> RequestOutcome {
        match self {
            Self::Http(head, _) => RequestOutcome::of_status(head.status.as_u16()),
            Self::Call(Ok(_)) => RequestOutcome::Succeeded,
            Self::Call(Err(_)) => RequestOutcome::Rejected,
        }
    }

    /// Bytes of its body.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Http(_, body) | Self::Call(Ok(body)) => body.len(),
            Self::Call(Err(failure)) => failure.message.len(),
        }
    }

    /// Says which record it saw or made.
    pub(super) fn saw(&mut self, sequence: Sequence) {
        match self {
            Self::Http(head, _) => sequence::put(&mut head.headers, sequence),
            Self::Call(_) => {}
        }
    }

    pub(super) fn send(self, reply: Reply) {
        match self {
            Self::Http(head, body) => reply.response(Response::from_parts(head, ResponseBody::whole(body))),
            Self::Call(answered) => reply.answered(answered),
        }
    }

    /// As it is stored. A call that failed is never stored: nothing of it is committed.
    pub(super) fn to_stored(&self) -> StoredResponse {
        match self {
            Self::Http(head, body) => {
                let headers = head.headers.iter();
                let headers = headers.map(|(name, value)| {
                    (name.as_str().to_owned(), Bytes::copy_from_slice(value.as_bytes()))
                });
                StoredResponse {
                    status: head.status.as_u16(),
                    headers: headers.collect(),
                    body: body.clone(),
                }
            }
            Self::Call(answered) => StoredResponse {
                status: StatusCode::OK.as_u16(),
                headers: Vec::new(),
                body: answered.clone().unwrap_or_default(),
            },
        }
    }

    pub(super) fn of_stored(stored: StoredResponse, form: Form) -> Result<Self, RequestError> {
        if form == Form::Call {
            return Ok(Self::Call(Ok(stored.body)));
        }
        let damaged =
            |what: &str| RequestError::StateUnavailable { reason: format!("a stored answer has {what}") };
        let (mut head, ()) = Response::new(()).into_parts();
        head.status = StatusCode::from_u16(stored.status).map_err(|_| damaged("no valid status"))?;
        for (name, value) in stored.headers {
            let name: HeaderName = name.parse().map_err(|_| damaged("no valid header name"))?;
            let value =
                HeaderValue::from_maybe_shared(value).map_err(|_| damaged("no valid header value"))?;
            head.headers.append(name, value);
        }
        Ok(Self::Http(head, stored.body))
    }
}
