//! Idempotency keys: one key is applied once, whatever happens at the same time.

use hvm_runtime::RequestError;

use super::bed::{Bed, first, keyed};

#[tokio::test]
async fn the_same_request_with_the_same_key_gets_the_first_answer_and_is_not_run_again() {
    let bed = Bed::with_probe().await;
    let once = bed.request(&first(), keyed("k1", "/kv/incr?k=n", "x")).await.expect("applied");
    assert_eq!((once.text().as_str(), once.header("idempotency-replayed")), ("1", None));
    let again = bed.request(&first(), keyed("k1", "/kv/incr?k=n", "x")).await.expect("replayed");
    assert_eq!((again.text().as_str(), again.header("idempotency-replayed")), ("1", Some("true")));
    assert_eq!(once.head.headers.get("content-type"), again.head.headers.get("content-type"));
    let other = bed.request(&first(), keyed("k2", "/kv/incr?k=n", "x")).await.expect("applied");
    assert_eq!(other.text(), "2");
}

#[tokio::test]
async fn another_request_with_the_same_key_is_refused() {
    let bed = Bed::with_probe().await;
    bed.request(&first(), keyed("k", "/kv/incr?k=n", "x")).await.expect("applied");
    for (path, body) in [("/kv/incr?k=n", "y"), ("/kv/incr?k=m", "x")] {
        let error = bed.request(&first(), keyed("k", path, body)).await.expect_err("another request");
        assert_eq!((&error, error.status().as_u16()), (&RequestError::IdempotencyMismatch, 422));
    }
    assert_eq!(bed.get("/kv/get?k=n").await.expect("read").text(), "1");
}

#[tokio::test]
async fn duplicates_at_the_same_time_are_applied_once() {
    let bed = Bed::with_probe().await;
    let id = first();
    let asked = (0..40).map(|_| bed.request(&id, keyed("k", "/kv/incr?k=n", "x")));
    let answers = futures::future::join_all(asked).await;
    let mut first_answers = 0;
    for answer in answers {
        let answer = answer.expect("answered");
        assert_eq!(answer.text(), "1");
        first_answers += u32::from(answer.header("idempotency-replayed").is_none());
    }
    assert_eq!(first_answers, 1);
    assert_eq!(bed.get("/kv/get?k=n").await.expect("read").text(), "1");
}

#[tokio::test]
async fn a_key_of_a_command_that_failed_can_be_used_again() {
    let bed = Bed::with_probe().await;
    let failed = bed.request(&first(), keyed("k", "/kv/set-then-fail?status=500", "x")).await;
    assert_eq!(failed.expect("answered").status(), 500);
    let trapped = bed.request(&first(), keyed("k", "/trap", "x")).await;
    assert!(trapped.is_err());
    let applied = bed.request(&first(), keyed("k", "/kv/incr?k=n", "x")).await.expect("applied");
    assert_eq!((applied.text().as_str(), applied.header("idempotency-replayed")), ("1", None));
}

#[tokio::test]
async fn a_command_without_writes_is_not_run_again_either() {
    let bed = Bed::with_probe().await;
    let ask = async || bed.request(&first(), keyed("k", "/random", "")).await.expect("answered").text();
    assert_eq!(ask().await, ask().await);
}

#[tokio::test]
async fn answers_survive_a_restart() {
    let bed = Bed::with_probe().await;
    bed.request(&first(), keyed("k", "/kv/incr?k=n", "x")).await.expect("applied");
    let bed = bed.restart().await;
    bed.open(&first(), |_| {}).await;
    let again = bed.request(&first(), keyed("k", "/kv/incr?k=n", "x")).await.expect("replayed");
    assert_eq!((again.text().as_str(), again.header("idempotency-replayed")), ("1", Some("true")));
}

#[tokio::test]
async fn a_key_of_wrong_form_is_refused() {
    let bed = Bed::with_probe().await;
    let long = "k".repeat(256);
    for key in ["", long.as_str()] {
        let error = bed.request(&first(), keyed(key, "/kv/incr", "")).await.expect_err("no key");
        assert_eq!((&error, error.status().as_u16()), (&RequestError::IdempotencyKeyInvalid, 400));
    }
    let mut twice = keyed("a", "/kv/incr", "");
    twice.headers_mut().append("idempotency-key", "b".parse().expect("a valid header"));
    let error = bed.request(&first(), twice).await.expect_err("two keys");
    assert_eq!(error, RequestError::IdempotencyKeyInvalid);
}
