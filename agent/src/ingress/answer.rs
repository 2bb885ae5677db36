//! Answers that the ingress itself gives: errors, as JSON, with the status that says what to do.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use http_body_util::Full;
use hvm_runtime::RequestError;
use hvm_types::ReplicaId;

use super::framing::HeadRefusal;
use super::header::{AskedHostError, PARTITION};
use super::key::KeyError;
use super::routing::RoutingError;

/// When a client should ask again that found a partition starting or moving.
const SOON: Duration = Duration::from_secs(1);

/// A request that was not answered by a guest.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IngressRefusal {
    #[error(transparent)]
    Framing(#[from] HeadRefusal),
    #[error(transparent)]
    Head(#[from] AskedHostError),
    #[error("the method CONNECT is not offered")]
    Connect,
    /// The host is new, or was made anew, and has not reached the scheduler.
    #[error("this host has not heard from the scheduler yet, so it knows no routes; try again")]
    NoDocument,
    #[error(transparent)]
    Routing(#[from] RoutingError),
    /// The partition is here, but does not take requests.
    #[error("{replica} is starting on this host; try again")]
    Starting { replica: ReplicaId },
    #[error("too many requests wait for partitions that are starting on this host; try again")]
    TooManyWait,
    /// A forwarded request whose partition is not here either: the hosts' documents differ for a moment.
    #[error("{group} is not on this host, and the request was forwarded once already; try again")]
    ForwardedTwice { group: String },
    /// Nothing was sent to the owner.
    #[error("host {host}, which owns {group}, can't be reached at {address}; try again")]
    OwnerUnreachable { host: String, address: String, group: String },
    #[error("too many requests are being passed on to other hosts by this one; try again")]
    TooManyForwarded,
    /// The owner may have done it.
    #[error(
        "host {host}, which owns {group}, broke off before it answered; whether the request was applied is not \
         known: repeat it with the same Idempotency-Key"
    )]
    OwnerLost { host: String, group: String },
    #[error(transparent)]
    Request(#[from] RequestError),
}

impl IngressRefusal {
    fn status(&self) -> StatusCode {
        match self {
            Self::Framing(HeadRefusal::TooLong) => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Framing(HeadRefusal::Ambiguous) | Self::Head(_) => StatusCode::BAD_REQUEST,
            Self::Connect => StatusCode::NOT_IMPLEMENTED,
            Self::Routing(RoutingError::NoRoute { .. }) => StatusCode::NOT_FOUND,
            Self::Routing(RoutingError::Key(_)) => StatusCode::BAD_REQUEST,
            Self::Routing(RoutingError::Unplaced { .. })
            | Self::NoDocument
            | Self::Starting { .. }
            | Self::TooManyWait
            | Self::ForwardedTwice { .. }
            | Self::OwnerUnreachable { .. }
            | Self::TooManyForwarded
            // It is assigned here, so that it will be known in a moment.
            | Self::Request(RequestError::Unknown { .. }) => StatusCode::SERVICE_UNAVAILABLE,
            Self::OwnerLost { .. } => StatusCode::BAD_GATEWAY,
            Self::Request(error) => error.status(),
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Request(RequestError::Unknown { .. }) => Some(SOON),
            Self::Request(error) => error.retry_after(),
            _ => (self.status() == StatusCode::SERVICE_UNAVAILABLE).then_some(SOON),
        }
    }

    /// A fixed word for programs.
    fn kind(&self) -> &'static str {
        match self {
            Self::Framing(HeadRefusal::Ambiguous) => "ambiguous",
            Self::Framing(HeadRefusal::TooLong) => "head-too-long",
            Self::Head(_) => "host-header",
            Self::Connect => "method",
            Self::Routing(RoutingError::NoRoute { .. }) => "no-route",
            Self::Routing(RoutingError::Key(KeyError::Missing { .. })) => "key-missing",
            Self::Routing(RoutingError::Key(_)) => "key-invalid",
            Self::Routing(RoutingError::Unplaced { .. }) => "unplaced",
            Self::NoDocument => "no-document",
            Self::Starting { .. } | Self::TooManyWait => "starting",
            Self::ForwardedTwice { .. } => "forwarded-twice",
            Self::OwnerUnreachable { .. } => "owner-unreachable",
            Self::TooManyForwarded => "forwarding-full",
            Self::OwnerLost { .. } => "owner-lost",
            Self::Request(error) => request_kind(error),
        }
    }

    /// The answer that says it.
    pub(crate) fn into_response(self, replica: Option<&ReplicaId>) -> Response<Full<Bytes>> {
        let replica = replica.or(match &self {
            Self::Routing(RoutingError::Unplaced { replica, .. }) => replica.as_ref(),
            Self::Starting { replica } => Some(replica),
            _ => None,
        });
        let partition = replica.map(ReplicaId::to_string);
        let body = serde_json::json!({
            "error": { "kind": self.kind(), "message": self.to_string(), "partition": partition }
        });
        let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(wait) = self.retry_after() {
            headers.insert(RETRY_AFTER, HeaderValue::from(wait.as_secs().max(1)));
        }
        if let Some(value) = partition.and_then(|text| HeaderValue::try_from(text).ok()) {
            headers.insert(PARTITION, value);
        }
        response
    }
}

fn request_kind(error: &RequestError) -> &'static str {
    match error {
        RequestError::Unknown { .. } | RequestError::NotReady { .. } => "starting",
        RequestError::MailboxFull { .. } => "mailbox-full",
        RequestError::BodiesFull { .. } => "bodies-full",
        RequestError::HostFull => "host-full",
        RequestError::Invalid { .. } | RequestError::NoTypedHandler => "invalid",
        RequestError::Reserved => "reserved",
        RequestError::BodyBroken { .. } => "body-broken",
        RequestError::BodyTooLarge { .. } => "body-too-large",
        RequestError::IdempotencyKeyInvalid => "idempotency-key-invalid",
        RequestError::IdempotencyMismatch => "idempotency-mismatch",
        RequestError::AtLeastInvalid => "at-least-invalid",
        RequestError::Behind { .. } => "behind",
        RequestError::StorageFull { .. } => "storage-full",
        RequestError::QuotaExceeded { .. } => "quota-exceeded",
        RequestError::WritesTooLarge { .. } => "writes-too-large",
        RequestError::Deadline { .. } => "deadline",
        RequestError::Trapped { .. } => "trapped",
        RequestError::NoResponse => "no-response",
        RequestError::GuestError { .. } => "guest-error",
        RequestError::ResponseIncomplete => "response-incomplete",
        RequestError::ResponseInvalid { .. } => "response-invalid",
        RequestError::ResponseUnread { .. } => "response-unread",
        RequestError::ResponseTooLarge { .. } => "response-too-large",
        RequestError::Fenced { .. } => "fenced",
        RequestError::CommitUnavailable { .. } => "commit-unavailable",
        RequestError::CommitBusy => "commit-busy",
        RequestError::StateUnavailable { .. } => "state-unavailable",
        RequestError::Internal { .. } => "internal",
        RequestError::Stopped => "stopped",
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    async fn answer(
        refusal: IngressRefusal,
        replica: Option<&ReplicaId>,
    ) -> (u16, Option<String>, serde_json::Value) {
        let (parts, body) = refusal.into_response(replica).into_parts();
        let retry = parts.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let body = body.collect().await.expect("a whole body").to_bytes();
        (parts.status.as_u16(), retry, serde_json::from_slice(&body).expect("JSON"))
    }

    #[tokio::test]
    async fn a_refusal_says_what_where_and_whether_to_try_again() {
        let replica: ReplicaId = "d/g/3".parse().expect("a replica");
        let (status, retry, body) = answer(IngressRefusal::Starting { replica }, None).await;
        assert_eq!((status, retry.as_deref()), (503, Some("1")));
        assert_eq!(body["error"]["kind"], "starting");
        assert_eq!(body["error"]["partition"], "d/g/3");

        let missing = KeyError::Missing { place: "the header `x-tenant`".to_owned() };
        let (status, retry, body) = answer(RoutingError::Key(missing).into(), None).await;
        assert_eq!((status, retry), (400, None));
        assert!(body["error"]["message"].as_str().is_some_and(|text| text.contains("the header `x-tenant`")));
    }

    #[tokio::test]
    async fn a_partition_that_is_assigned_here_and_not_open_yet_is_worth_a_retry() {
        let id: ReplicaId = "d/g/0".parse().expect("a replica");
        let (status, retry, _) = answer(RequestError::Unknown { id: id.clone() }.into(), Some(&id)).await;
        assert_eq!((status, retry.as_deref()), (503, Some("1")));
    }
}
