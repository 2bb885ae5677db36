//! Queries: they see committed state only, can't write, run beside commands, and stream.

use std::time::Duration;

use http::Method;
use hvm_runtime::RequestError;

use super::bed::{Answer, Bed, first, request};

#[tokio::test]
async fn a_query_can_not_write() {
    let bed = Bed::with_probe().await;
    let answer = bed.get("/write-in-get?k=a&v=1").await.expect("answered by the guest");
    assert_eq!(answer.status(), 500);
    assert!(answer.text().contains("a query can't write"), "{}", answer.text());
    assert_eq!(bed.get("/kv/get?k=a").await.expect("read").status(), 404);
}

#[tokio::test]
async fn get_head_and_options_are_queries_and_the_rest_are_commands() {
    let bed = Bed::with_probe().await;
    for method in [Method::GET, Method::HEAD, Method::OPTIONS] {
        let answer = bed.ask(method.clone(), "/kv/set?k=a", "1").await.expect("answered");
        assert_eq!(answer.status(), 500, "{method}");
    }
    for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
        let answer = bed.ask(method.clone(), "/kv/set?k=a", "1").await.expect("answered");
        assert_eq!(answer.status(), 204, "{method}");
    }
}

#[tokio::test]
async fn a_query_sees_one_moment_whatever_is_committed_meanwhile() {
    let bed = Bed::with_probe().await;
    bed.post("/kv/set?k=a&v=before", "").await.expect("set");
    let query = bed.get("/kv/get-sleep-get?k=a&ms=300");
    let command = async {
        bed.until(&first(), |status| status.doing.iter().any(|doing| doing.what.contains("get-sleep-get")))
            .await;
        bed.post("/kv/set?k=a&v=after", "").await.expect("a command beside the query")
    };
    let (answer, _) = tokio::join!(query, command);
    assert_eq!(answer.expect("read twice").text(), "before before");
    assert_eq!(bed.get("/kv/get?k=a").await.expect("read").text(), "after");
}

#[tokio::test]
async fn a_query_never_sees_what_a_command_has_not_committed() {
    let bed = Bed::with_hasty_probe(Duration::from_millis(500)).await;
    let command = bed.post("/kv/set-then-fail?k=a&v=1&status=loop", "");
    let query = async {
        bed.until(&first(), |status| status.doing.iter().any(|doing| doing.what.starts_with("POST"))).await;
        bed.get("/kv/get?k=a").await.expect("answered beside the command").status()
    };
    let (failed, seen) = tokio::join!(command, query);
    assert!(failed.is_err());
    assert_eq!(seen, 404);
}

#[tokio::test]
async fn a_long_answer_arrives_whole() {
    let bed = Bed::with_probe().await;
    let answer = bed.get("/big?mb=20").await.expect("answered");
    assert_eq!(answer.body.expect("whole").len(), 20_000_000);
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_never_taken_for_a_whole_one() {
    let bed = Bed::with_hasty_probe(Duration::from_millis(300)).await;
    for (then, expected) in [
        ("trap", "was stopped"),
        ("stop", "did not finish"),
        ("finish", "did not finish"),
        ("hang", "deadline"),
        ("loop", "deadline"),
    ] {
        // Where nothing has left yet, the whole answer is the error; else the body ends with it.
        let error = match bed.get(&format!("/half?then={then}")).await {
            Ok(answer) => answer.body.expect_err("half a body is no body").to_string(),
            Err(error) => error.to_string(),
        };
        assert!(error.contains(expected), "{then}: {error}");
    }
    assert_eq!(bed.get("/").await.expect("the partition serves on").text(), "probe\n");
}

#[tokio::test]
async fn a_query_whose_asker_is_gone_is_stopped() {
    let bed = Bed::with_probe().await;
    let id = first();
    let asking = bed.hvm.request(&id, request(Method::GET, "/hang", ""));
    let gone = tokio::time::timeout(Duration::from_millis(50), asking).await;
    assert!(gone.is_err(), "a guest that hangs has answered");
    bed.until(&first(), |status| status.doing.is_empty()).await;

    let response = bed.hvm.request(&first(), request(Method::GET, "/hang-body", "")).await.expect("a head");
    drop(response);
    bed.until(&first(), |status| status.doing.is_empty()).await;
}

#[tokio::test]
async fn a_stateless_replica_answers_several_requests_at_once() {
    let bed = Bed::new();
    let hello = bed.module(guests_path::Guest::Hello).await;
    bed.open(&first(), |spec| {
        spec.stateful = false;
        spec.module = hello.clone();
        spec.grants = hvm_types::Grants::default();
    })
    .await;
    let asked = (0..8).map(|_| bed.get("/"));
    for answer in futures::future::join_all(asked).await {
        assert_eq!(answer.expect("answered").status(), 200);
    }
    let keyed = super::bed::keyed("k", "/", "");
    let answer = bed.request(&first(), keyed).await.expect("a key means nothing without state");
    assert_eq!(answer.header("idempotency-replayed"), None);
}

#[tokio::test]
async fn a_body_is_read_again_only_by_the_one_who_asked() {
    let bed = Bed::with_probe().await;
    let response = bed.hvm.request(&first(), request(Method::GET, "/echo", "x")).await.expect("a head");
    assert_eq!(Answer::of(response).await.text(), "x");
}

#[tokio::test]
async fn a_query_with_too_long_a_body_is_told_so() {
    let bed = Bed::new();
    bed.open(&first(), |spec| spec.resources.request_body = hvm_types::ByteSize(10)).await;
    let error = bed.ask(Method::GET, "/echo", "more than ten bytes").await;
    assert!(
        matches!(error, Err(RequestError::BodyTooLarge { .. } | RequestError::Trapped { .. }))
            || error.as_ref().is_ok_and(|answer| answer.status() >= 400),
        "{error:?}"
    );
}
