//! Idempotency keys: telling a repetition from another request, and giving the first answer again.

use http::{HeaderName, HeaderValue, request};
use hvm_types::Digest;
use sha2::{Digest as _, Sha256};

use super::answer::{Answer, Form, Question};
use super::sequence;
use crate::state::{Exchange, Idempotency, IdempotencyKey, StoredAnswer};
use crate::{Call, RequestError};

/// Marks an answer that was given before.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// Bytes of a body that are digested before the worker's other work has its turn: about 0.1 ms.
const PIECE_BYTES: usize = 64 << 10;

/// What makes two requests the same: method, path with query, and body; or name and payload of a call.
pub(super) async fn digest(question: &Question) -> Digest {
    match question {
        Question::Http(head, body) => digest_of_request(head, body).await,
        // No method has a space in it, so no request is the same as a call; nor has a digest a line end.
        Question::Call(Call { name, payload, .. }) => {
            let (name, payload) = (Digest::of(name.as_bytes()), digest_in_turns(payload).await);
            Digest::of(format!("hvm:app command\n{name}\n{payload}").as_bytes())
        }
    }
}

async fn digest_in_turns(bytes: &[u8]) -> Digest {
    let mut hasher = Sha256::new();
    for (number, piece) in bytes.chunks(PIECE_BYTES).enumerate() {
        if number > 0 {
            tokio::task::yield_now().await;
        }
        hasher.update(piece);
    }
    Digest::from_bytes(hasher.finalize().into())
}

async fn digest_of_request(head: &request::Parts, body: &[u8]) -> Digest {
    let body = digest_in_turns(body).await;
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    // Neither a method nor a path can hold a line end, so the parts can't run into each other.
    Digest::of(format!("{}\n{path}\n{body}", head.method).as_bytes())
}

/// The answer again, if the request is the same.
pub(super) fn replay(answer: StoredAnswer, request: Digest, form: Form) -> Result<Answer, RequestError> {
    if answer.request != request {
        return Err(RequestError::IdempotencyMismatch);
    }
    let mut again = Answer::of_stored(answer.response, form)?;
    if let Answer::Http(head, _) = &mut again {
        head.headers.insert(REPLAYED, HeaderValue::from_static("true"));
        sequence::put(&mut head.headers, answer.sequence);
    }
    Ok(again)
}

/// What a command is known by.
pub(super) struct Identity {
    /// Present where it has a key, or where records are kept.
    pub(super) digest: Option<Digest>,
    pub(super) key: Option<IdempotencyKey>,
}

impl Identity {
    /// The part of a commit that lets the answer be given again.
    pub(super) fn entry(&self, answer: &Answer) -> Option<Idempotency> {
        let Self { digest: Some(digest), key: Some(key) } = self else { return None };
        Some(Idempotency { key: key.clone(), request: *digest, response: answer.to_stored() })
    }

    /// The part that only history keeps, of a command without a key.
    pub(super) fn exchange(&self, answer: &Answer) -> Option<Exchange> {
        let Self { digest: Some(digest), key: None } = self else { return None };
        Some(Exchange { request: *digest, response: answer.to_stored() })
    }
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

    #[tokio::test]
    async fn requests_differ_by_method_path_query_and_body() {
        let digest = digest_of_request;
        let first = digest(&parts("POST", "/a?b=c"), b"body").await;
        assert_eq!(first, digest(&parts("POST", "/a?b=c"), b"body").await);
        for (method, uri, body) in [
            ("PUT", "/a?b=c", &b"body"[..]),
            ("POST", "/a", b"body"),
            ("POST", "/a?b=d", b"body"),
            ("POST", "/a?b=c", b""),
        ] {
            assert_ne!(first, digest(&parts(method, uri), body).await, "{method} {uri}");
        }
    }

    #[tokio::test]
    async fn a_long_body_is_digested_whole_and_in_turns() {
        let mut body = vec![b'x'; 3 * PIECE_BYTES];
        let whole = digest_of_request(&parts("POST", "/"), &body).await;
        // Stored answers carry it: it must stay what it is.
        let parts_of_it = format!("POST\n/\n{}", Digest::of(&body));
        assert_eq!(whole, Digest::of(parts_of_it.as_bytes()));
        body[2 * PIECE_BYTES] = b'y';
        assert_ne!(whole, digest_of_request(&parts("POST", "/"), &body).await);
        let first_turn = futures::FutureExt::now_or_never(digest_of_request(&parts("POST", "/"), &body));
        assert!(first_turn.is_none(), "it does not give way");
    }

    #[tokio::test]
    async fn calls_differ_by_name_and_payload_and_from_requests() {
        let call =
            async |name, payload: &'static [u8]| digest(&Question::Call(Call::command(name, payload))).await;
        assert_eq!(call("a", b"b").await, call("a", b"b").await);
        for (name, payload) in [("a", &b"c"[..]), ("b", b"b"), ("ab", b""), ("a\n", b"b")] {
            assert_ne!(call("a", b"b").await, call(name, payload).await, "{name}");
        }
        let request = Question::Http(parts("POST", "/a"), Bytes::from_static(b"b"));
        assert_ne!(call("a", b"b").await, digest(&request).await);
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
        let identity = Identity { digest: Some(request), key: Some("k".parse().expect("a valid key")) };
        let given = Answer::Http(head, Bytes::from_static(b"done"));
        assert_eq!(identity.exchange(&given), None, "what has a key is kept once");
        let stored = identity.entry(&given).expect("it has a key");
        let answer = StoredAnswer { request, sequence: Sequence(1), response: stored.response };
        let again = replay(answer.clone(), request, Form::Http).expect("the same request");
        let Answer::Http(head, _) = again else { panic!("a call's answer") };
        assert_eq!(head.status, 201);
        assert_eq!(head.headers.get_all("x-a").iter().collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!(head.headers["idempotency-replayed"], "true");
        assert_eq!(head.headers["hvm-sequence"], "1");
        let other = replay(answer, Digest::of(b"other"), Form::Http).err().expect("another request");
        assert_eq!(other, RequestError::IdempotencyMismatch);
    }
}
