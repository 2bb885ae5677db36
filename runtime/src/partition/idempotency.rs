//! Idempotency keys: telling a repetition from another request, and giving the first answer again.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, request, response};
use hvm_types::Digest;

use crate::state::{Idempotency, IdempotencyKey, StoredAnswer, StoredResponse};
use crate::{RequestError, ResponseBody};

/// Marks an answer that was given before.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// What makes two requests the same: method, path with query, and body.
pub(super) fn digest(head: &request::Parts, body: &[u8]) -> Digest {
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    // Neither a method nor a path can hold a line end, so the parts can't run into each other.
    Digest::of(format!("{}\n{path}\n{}", head.method, Digest::of(body)).as_bytes())
}

/// The answer again, if the request is the same.
pub(super) fn replay(answer: StoredAnswer, request: Digest) -> Result<Response<ResponseBody>, RequestError> {
    if answer.request != request {
        return Err(RequestError::IdempotencyMismatch);
    }
    let stored = answer.response;
    let damaged =
        |what: &str| RequestError::StateUnavailable { reason: format!("a stored answer has {what}") };
    let mut response = Response::new(ResponseBody::whole(stored.body));
    *response.status_mut() = StatusCode::from_u16(stored.status).map_err(|_| damaged("no valid status"))?;
    for (name, value) in stored.headers {
        let name: HeaderName = name.parse().map_err(|_| damaged("no valid header name"))?;
        let value = HeaderValue::from_maybe_shared(value).map_err(|_| damaged("no valid header value"))?;
        response.headers_mut().append(name, value);
    }
    response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    Ok(response)
}

/// The part of a commit that lets the answer be given again.
pub(super) fn entry(
    key: IdempotencyKey,
    request: Digest,
    head: &response::Parts,
    body: &Bytes,
) -> Idempotency {
    let headers = head
        .headers
        .iter()
        .map(|(name, value)| (name.as_str().to_owned(), Bytes::copy_from_slice(value.as_bytes())))
        .collect();
    let response = StoredResponse { status: head.status.as_u16(), headers, body: body.clone() };
    Idempotency { key, request, response }
}

#[cfg(test)]
mod tests {
    use http::Request;
    use hvm_types::Sequence;

    use super::*;

    fn parts(method: &str, uri: &str) -> request::Parts {
        Request::builder().method(method).uri(uri).body(()).expect("a request").into_parts().0
    }

    #[test]
    fn requests_differ_by_method_path_query_and_body() {
        let first = digest(&parts("POST", "/a?b=c"), b"body");
        assert_eq!(first, digest(&parts("POST", "/a?b=c"), b"body"));
        for (method, uri, body) in [
            ("PUT", "/a?b=c", &b"body"[..]),
            ("POST", "/a", b"body"),
            ("POST", "/a?b=d", b"body"),
            ("POST", "/a?b=c", b""),
        ] {
            assert_ne!(first, digest(&parts(method, uri), body), "{method} {uri}");
        }
    }

    #[test]
    fn a_replayed_answer_is_the_first_with_a_mark() {
        let head = Response::builder()
            .status(201)
            .header("x-a", "1")
            .header("x-a", "2")
            .body(())
            .expect("a response")
            .into_parts()
            .0;
        let request = Digest::of(b"request");
        let key = "k".parse().expect("a valid key");
        let stored = entry(key, request, &head, &Bytes::from_static(b"done"));
        let answer = StoredAnswer { request, sequence: Sequence(1), response: stored.response };
        let again = replay(answer.clone(), request).expect("the same request");
        assert_eq!(again.status(), 201);
        assert_eq!(again.headers().get_all("x-a").iter().collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!(again.headers()["idempotency-replayed"], "true");
        let other = replay(answer, Digest::of(b"other")).expect_err("another request");
        assert_eq!(other, RequestError::IdempotencyMismatch);
    }
}
