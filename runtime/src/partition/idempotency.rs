//! Idempotency keys: telling a repetition from another request, and giving the first answer again.

use http::{HeaderName, HeaderValue, request};
use hvm_types::Digest;

use super::answer::{Answer, Form, Question};
use crate::state::{Idempotency, IdempotencyKey, StoredAnswer};
use crate::{Call, RequestError};

/// Marks an answer that was given before.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// What makes two requests the same: method, path with query, and body; or name and payload of a call.
pub(super) fn digest(question: &Question) -> Digest {
    match question {
        Question::Http(head, body) => digest_of_request(head, body),
        // No method has a space in it, so no request is the same as a call; nor has a digest a line end.
        Question::Call(Call { name, payload, .. }) => {
            let (name, payload) = (Digest::of(name.as_bytes()), Digest::of(payload));
            Digest::of(format!("hvm:app command\n{name}\n{payload}").as_bytes())
        }
    }
}

fn digest_of_request(head: &request::Parts, body: &[u8]) -> Digest {
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    // Neither a method nor a path can hold a line end, so the parts can't run into each other.
    Digest::of(format!("{}\n{path}\n{}", head.method, Digest::of(body)).as_bytes())
}

/// The answer again, if the request is the same.
pub(super) fn replay(answer: StoredAnswer, request: Digest, form: Form) -> Result<Answer, RequestError> {
    if answer.request != request {
        return Err(RequestError::IdempotencyMismatch);
    }
    let mut answer = Answer::of_stored(answer.response, form)?;
    if let Answer::Http(head, _) = &mut answer {
        head.headers.insert(REPLAYED, HeaderValue::from_static("true"));
    }
    Ok(answer)
}

/// The part of a commit that lets the answer be given again.
pub(super) fn entry(key: IdempotencyKey, request: Digest, answer: &Answer) -> Idempotency {
    Idempotency { key, request, response: answer.to_stored() }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{Request, Response};
    use hvm_types::Sequence;

    use super::*;

    fn parts(method: &str, uri: &str) -> request::Parts {
        Request::builder().method(method).uri(uri).body(()).expect("a request").into_parts().0
    }

    #[test]
    fn requests_differ_by_method_path_query_and_body() {
        let digest = digest_of_request;
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
    fn calls_differ_by_name_and_payload_and_from_requests() {
        let call = |name, payload: &'static [u8]| digest(&Question::Call(Call::command(name, payload)));
        assert_eq!(call("a", b"b"), call("a", b"b"));
        for (name, payload) in [("a", &b"c"[..]), ("b", b"b"), ("ab", b""), ("a\n", b"b")] {
            assert_ne!(call("a", b"b"), call(name, payload), "{name}");
        }
        let request = Question::Http(parts("POST", "/a"), Bytes::from_static(b"b"));
        assert_ne!(call("a", b"b"), digest(&request));
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
        let stored = entry(key, request, &Answer::Http(head, Bytes::from_static(b"done")));
        let answer = StoredAnswer { request, sequence: Sequence(1), response: stored.response };
        let again = replay(answer.clone(), request, Form::Http).expect("the same request");
        let Answer::Http(head, _) = again else { panic!("a call's answer") };
        assert_eq!(head.status, 201);
        assert_eq!(head.headers.get_all("x-a").iter().collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!(head.headers["idempotency-replayed"], "true");
        let other = replay(answer, Digest::of(b"other"), Form::Http).err().expect("another request");
        assert_eq!(other, RequestError::IdempotencyMismatch);
    }
}
