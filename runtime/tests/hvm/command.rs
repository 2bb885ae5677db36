//! The commit rule: what a command did is kept wholly when it answers below 400, and else is as if it had
//! never run.

use http::{Method, Request};
use hvm_runtime::{RequestBody, RequestError};
use hvm_types::ByteSize;

use super::bed::{Bed, first};

#[tokio::test]
async fn what_a_command_wrote_is_there_for_queries_and_later_commands() {
    let bed = Bed::with_probe().await;
    assert_eq!(bed.post("/kv/set?k=a&v=1", "").await.expect("set").status(), 204);
    assert_eq!(bed.get("/kv/get?k=a").await.expect("read").text(), "1");
    assert_eq!(bed.post("/kv/incr?k=a&by=4", "").await.expect("incremented").text(), "5");
    assert_eq!(bed.get("/kv/get?k=a").await.expect("read").text(), "5");
    assert_eq!(bed.post("/kv/delete?k=a", "").await.expect("deleted").status(), 204);
    assert_eq!(bed.get("/kv/get?k=a").await.expect("read").status(), 404);
}

#[tokio::test]
async fn a_command_reads_its_own_writes() {
    let bed = Bed::with_probe().await;
    assert_eq!(bed.post("/kv/set-then-get?k=a&v=1", "").await.expect("set").text(), "1");
    let batch = bed.post("/kv/batch", "x=1\ny=2").await.expect("set and read");
    assert_eq!(batch.text(), "x=1\ny=2\nabsent has none\n");
    assert_eq!(bed.post("/kv/list", "").await.expect("listed").text(), "a\nx\ny\n");
}

#[tokio::test]
async fn a_command_that_answers_400_or_above_changes_nothing() {
    let bed = Bed::with_probe().await;
    bed.post("/kv/set?k=a&v=before", "").await.expect("set");
    for status in [400, 409, 500, 503] {
        let path = format!("/kv/set-then-fail?k=a&v=after&status={status}");
        assert_eq!(bed.post(&path, "").await.expect("answered").status(), status);
        assert_eq!(bed.get("/kv/get?k=a").await.expect("read").text(), "before");
        let read = bed.post("/kv/get?k=a", "").await.expect("read by a command");
        assert_eq!(read.text(), "before", "the write was left in the guest or in its buffer");
    }
}

#[tokio::test]
async fn a_command_that_is_stopped_changes_nothing() {
    let bed = Bed::with_hasty_probe(std::time::Duration::from_millis(300)).await;
    bed.post("/kv/set?k=a&v=before", "").await.expect("set");
    let trapped = bed.post("/kv/set-then-fail?k=a&v=after&status=trap", "").await;
    assert!(matches!(trapped, Err(RequestError::Trapped { .. })), "{trapped:?}");
    assert_eq!(bed.get("/kv/get?k=a").await.expect("read").text(), "before");
    let looped = bed.post("/kv/set-then-fail?k=a&v=after&status=loop", "").await;
    assert!(matches!(looped, Err(RequestError::Deadline { .. })), "{looped:?}");
    assert_eq!(bed.get("/kv/get?k=a").await.expect("read").text(), "before");
    assert_eq!(bed.post("/kv/set?k=a&v=after", "").await.expect("the next command runs").status(), 204);
}

#[tokio::test]
async fn guest_memory_does_not_outlive_writes_that_were_dropped() {
    let bed = Bed::with_probe().await;
    let count = async || bed.post("/counter-in-memory", "").await.expect("counted").text();
    assert_eq!((count().await.as_str(), count().await.as_str()), ("1", "2"));
    bed.post("/kv/set-then-fail?status=500", "").await.expect("answered");
    assert_eq!(count().await, "1", "the instance that failed serves on");
}

#[tokio::test]
async fn a_command_whose_commit_is_refused_changes_nothing() {
    let bed = Bed::new();
    bed.open(&first(), |spec| spec.resources.storage = ByteSize::kib(4)).await;
    bed.post("/kv/set?k=a&v=before", "").await.expect("set");
    assert_eq!(bed.post("/counter-in-memory", "").await.expect("counted").text(), "1");
    let error = bed.post("/kv/fill?n=10&size=1000", "").await.expect_err("10 KB do not fit");
    assert_eq!(error, RequestError::QuotaExceeded { limit: ByteSize::kib(4) });
    assert_eq!(error.status(), 507);
    assert_eq!(bed.post("/counter-in-memory", "").await.expect("counted").text(), "1", "the instance stayed");
    assert_eq!(bed.get("/kv/list").await.expect("listed").text(), "a\n");
}

#[tokio::test]
async fn only_commands_that_change_something_make_a_record() {
    let bed = Bed::with_probe().await;
    let sequence = || bed.status(&first()).expect("open").sequence.0;
    bed.post("/echo", "x").await.expect("echoed");
    bed.get("/kv/get").await.expect("read");
    assert_eq!(sequence(), 0);
    bed.post("/kv/set", "x").await.expect("set");
    assert_eq!(sequence(), 1);
    assert!(bed.status(&first()).expect("open").stored.0 > 0);
}

#[tokio::test]
async fn commands_run_one_after_another() {
    let bed = Bed::with_probe().await;
    // Each reads, computes and writes: any two at once would lose one.
    let increments = (0..50).map(|_| bed.post("/kv/incr?k=n", ""));
    for answer in futures::future::join_all(increments).await {
        assert_eq!(answer.expect("incremented").status(), 200);
    }
    assert_eq!(bed.get("/kv/get?k=n").await.expect("read").text(), "50");
}

#[tokio::test]
async fn the_request_arrives_as_it_was_sent() {
    let bed = Bed::with_probe().await;
    let request = Request::builder()
        .method(Method::PUT)
        .uri("/echo?a=b&status=201")
        .header("x-test", "yes")
        .body(RequestBody::from("a body"))
        .expect("a valid request");
    let answer = bed.request(&first(), request).await.expect("echoed");
    assert_eq!((answer.status(), answer.text().as_str()), (201, "a body"));
    assert_eq!(answer.header("echo-method"), Some("PUT"));
    assert_eq!(answer.header("echo-path"), Some("/echo"));
    assert_eq!(answer.header("echo-query"), Some("a=b&status=201"));
    assert_eq!(answer.header("echo-header-x-test"), Some("yes"));
}
