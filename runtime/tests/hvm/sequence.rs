//! Reading one's writes: every answer of a partition names its record, and a request can wait for one. And what is
//! kept of the records.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use http_body::Frame;
use http_body_util::StreamBody;
use hvm_runtime::state::HistoryPage;
use hvm_runtime::{Phase, RequestBody, RequestError};
use hvm_types::{Epoch, Generation, HistorySpec, Period, RetentionSpec, Sequence};

use super::bed::{Answer, Bed, first, keyed, request};

fn at_least(number: &str, method: Method, path: &str) -> Request<RequestBody> {
    let mut request = request(method, path, "");
    request.headers_mut().append("hvm-at-least", number.parse().expect("a valid header"));
    request
}

fn sequence(answer: &Answer) -> &str {
    assert_eq!(answer.head.headers.get_all("hvm-sequence").iter().count(), 1);
    answer.header("hvm-sequence").expect("it was counted")
}

async fn asks_for_a_record(bed: &Bed) {
    bed.until(&first(), |status| status.doing.iter().any(|doing| doing.phase == Phase::Record)).await;
}

#[tokio::test]
async fn every_answer_names_the_record_that_it_made_or_saw() {
    let bed = Bed::with_probe().await;
    let query = bed.get("/kv/get?k=n").await.expect("answered");
    assert_eq!((query.status(), sequence(&query)), (404, "0"));
    for made in ["1", "2"] {
        let command = bed.post("/kv/incr?k=n", "").await.expect("applied");
        assert_eq!((command.text().as_str(), sequence(&command)), (made, made));
    }
    assert_eq!(sequence(&bed.get("/kv/get?k=n").await.expect("read")), "2");
    assert_eq!(sequence(&bed.get("/").await.expect("answered without reading")), "2");
    for without_a_record in ["/echo", "/echo?status=409", "/kv/get?k=n", "/kv/set-then-fail?status=500"] {
        let answer = bed.post(without_a_record, "").await.expect("answered");
        assert_eq!(sequence(&answer), "2", "{without_a_record}");
    }
}

#[tokio::test]
async fn an_answer_that_is_given_again_names_the_record_of_then() {
    let bed = Bed::with_probe().await;
    for key in ["a", "b"] {
        bed.request(&first(), keyed(key, "/kv/incr?k=n", "")).await.expect("applied");
    }
    let again = bed.request(&first(), keyed("a", "/kv/incr?k=n", "")).await.expect("replayed");
    assert_eq!((again.header("idempotency-replayed"), sequence(&again)), (Some("true"), "1"));
}

#[tokio::test]
async fn a_query_names_the_record_of_its_snapshot_and_no_later_one() {
    let bed = Bed::with_probe().await;
    bed.post("/kv/set?k=a&v=before", "").await.expect("set");
    // Its guest reads when its body is there: some time after it began, and after the next command.
    let (committed, commits) = tokio::sync::oneshot::channel::<()>();
    let body = futures::stream::once(async move {
        commits.await.expect("the command is committed");
        Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(b"body")))
    });
    let mut slow = request(Method::GET, "/kv/get?k=a", "");
    *slow.body_mut() = RequestBody::new(StreamBody::new(body));
    let command = async {
        bed.until(&first(), |status| status.doing.iter().any(|doing| doing.phase == Phase::Guest)).await;
        let command = bed.post("/kv/set?k=a&v=after", "").await.expect("a command beside the query");
        committed.send(()).expect("the query waits");
        command
    };
    let id = first();
    let (slow, command) = tokio::join!(bed.request(&id, slow), command);
    let slow = slow.expect("answered");
    assert_eq!((sequence(&command), sequence(&slow), slow.text().as_str()), ("2", "1", "before"));
}

#[tokio::test]
async fn a_query_waits_for_the_record_that_it_asks_for() {
    let bed = Bed::with_probe().await;
    bed.post("/kv/incr?k=n", "").await.expect("applied");
    let at_once = bed.request(&first(), at_least("1", Method::GET, "/kv/get?k=n")).await.expect("read");
    assert_eq!((at_once.text().as_str(), sequence(&at_once)), ("1", "1"));
    let commands = async {
        asks_for_a_record(&bed).await;
        for made in ["2", "3"] {
            assert_eq!(sequence(&bed.post("/kv/incr?k=n", "").await.expect("applied")), made);
        }
    };
    let id = first();
    let (waited, ()) = tokio::join!(bed.request(&id, at_least("3", Method::GET, "/kv/get?k=n")), commands);
    let waited = waited.expect("read");
    assert_eq!((waited.text().as_str(), sequence(&waited)), ("3", "3"));
}

#[tokio::test]
async fn a_record_that_does_not_come_is_given_up_at_the_deadline_and_nothing_is_run() {
    let bed = Bed::with_hasty_probe(Duration::from_millis(300)).await;
    bed.post("/kv/incr?k=n", "").await.expect("applied");
    for method in [Method::GET, Method::POST] {
        let asked = at_least("7", method.clone(), "/kv/incr?k=n");
        let error = bed.request(&first(), asked).await.expect_err("there is no seventh record");
        let expected = RequestError::Behind { id: first(), at_least: Sequence(7), committed: Sequence(1) };
        assert_eq!(error, expected, "{method}");
        assert_eq!(error.status().as_u16(), 503);
        assert!(error.retry_after().is_some(), "it may come");
        let told = error.to_string();
        assert!(told.contains("record 7") && told.contains("committed 1"), "{told}");
    }
    assert_eq!(bed.get("/kv/get?k=n").await.expect("read").text(), "1", "a command ran that was behind");
}

#[tokio::test]
async fn a_command_runs_once_its_record_is_there() {
    let bed = Bed::with_probe().await;
    let command = async {
        asks_for_a_record(&bed).await;
        bed.post("/kv/set?k=n&v=10", "").await.expect("set")
    };
    let id = first();
    let (waited, _) = tokio::join!(bed.request(&id, at_least("1", Method::POST, "/kv/incr?k=n")), command);
    let waited = waited.expect("applied");
    assert_eq!((waited.text().as_str(), sequence(&waited)), ("11", "2"));
}

#[tokio::test]
async fn what_is_no_number_of_a_record_is_refused() {
    let bed = Bed::with_probe().await;
    let mut twice = at_least("1", Method::GET, "/");
    twice.headers_mut().append("hvm-at-least", "1".parse().expect("a valid header"));
    let wrong = ["", "-1", "one", "1.5", "99999999999999999999"].map(|n| at_least(n, Method::GET, "/"));
    for asked in wrong.into_iter().chain([twice]) {
        let error = bed.request(&first(), asked).await.expect_err("no number");
        assert_eq!((&error, error.status().as_u16()), (&RequestError::AtLeastInvalid, 400));
    }
}

#[tokio::test]
async fn the_headers_are_the_hosts_and_no_guests() {
    let bed = Bed::with_probe().await;
    for name in ["hvm-sequence", "hvm-at-least", "Hvm-Sequence"] {
        let path = format!("/kv/incr?k=n&answer-header={name}:999");
        let query = bed.get(&path.replace("incr", "exists")).await.expect("answered");
        let command = bed.request(&first(), keyed(name, &path, "")).await.expect("applied");
        let again = bed.request(&first(), keyed(name, &path, "")).await.expect("replayed");
        for answer in [query, command, again] {
            assert_ne!(sequence(&answer), "999");
            assert_eq!(answer.header("hvm-at-least"), None);
        }
    }
    let mut asked = at_least("1", Method::GET, "/echo");
    asked.headers_mut().insert("hvm-sequence", "1".parse().expect("a valid header"));
    let echo = bed.request(&first(), asked).await.expect("answered");
    assert!(echo.head.headers.keys().all(|name| !name.as_str().starts_with("echo-header-hvm")), "{echo:?}");
}

#[tokio::test]
async fn what_waits_for_a_record_leaves_room_for_the_others() {
    let bed = Bed::new();
    bed.open(&first(), |spec| {
        spec.resources.mailbox = 4;
        spec.resources.deadline = Period(Duration::from_secs(20));
    })
    .await;
    let id = first();
    let ask = || bed.request(&id, at_least("1", Method::GET, "/kv/get?k=n"));
    let others = async {
        let two = |status: &hvm_runtime::PartitionStatus| status.mailbox == 2;
        bed.until(&first(), two).await;
        let third = ask().await.expect_err("half of the mailbox waits");
        assert!(matches!(third, RequestError::Behind { .. }), "{third}");
        bed.post("/kv/incr?k=n", "").await.expect("there is room for it")
    };
    let (one, two, _) = tokio::join!(ask(), ask(), others);
    assert_eq!((one.expect("read").text(), two.expect("read").text()), ("1".to_owned(), "1".to_owned()));
}

#[tokio::test]
async fn a_partition_that_closes_does_not_wait_for_records() {
    let bed = Bed::new();
    bed.open(&first(), |spec| spec.resources.deadline = Period(Duration::from_secs(3_600))).await;
    let id = first();
    let close = async {
        asks_for_a_record(&bed).await;
        bed.hvm.close(&id).await
    };
    let (asked, closed) = tokio::join!(bed.request(&id, at_least("1", Method::GET, "/")), close);
    closed.expect("closed");
    assert!(matches!(asked, Err(RequestError::NotReady { .. })), "{asked:?}");
}

#[tokio::test]
async fn records_mean_nothing_to_a_replica_without_state() {
    let bed = Bed::new();
    let hello = bed.module(guests_path::Guest::Hello).await;
    bed.open(&first(), |spec| {
        (spec.stateful, spec.module) = (false, hello.clone());
        spec.grants = hvm_types::Grants::default();
    })
    .await;
    for number in ["7", "no number"] {
        let answer = bed.request(&first(), at_least(number, Method::GET, "/")).await.expect("answered");
        assert_eq!((answer.status(), answer.header("hvm-sequence")), (200, None));
    }
}

fn history(bed: &Bed) -> HistoryPage {
    let state = bed.state.open(&first(), Epoch(1)).expect("it is open with this epoch");
    state.history(Sequence(0), 100).expect("a page")
}

#[tokio::test]
async fn a_partition_keeps_the_records_that_its_deployment_asks_for() {
    let bed = Bed::new();
    let keeping = |records| {
        let history = Some(HistorySpec { records: Some(records), ..HistorySpec::default() });
        RetentionSpec { history, idempotency: None }
    };
    bed.open(&first(), |spec| spec.retention = keeping(2)).await;
    bed.post("/kv/incr?k=n", "").await.expect("applied");
    bed.request(&first(), keyed("key", "/kv/incr?k=n", "asked")).await.expect("applied");
    bed.post("/kv/incr?k=n", "asked").await.expect("applied");
    let page = history(&bed);
    let kept: Vec<_> = page.records.iter().map(|record| record.sequence.0).collect();
    assert_eq!(kept, [2, 3]);
    for record in &page.records {
        let exchange = record.exchange.as_ref().expect("the request and its answer");
        let n = record.writes.get("default", "n").expect("it was written").expect("to a value");
        assert_eq!((exchange.response.status, &exchange.response.body), (200, n));
    }
    let exchange = |at: usize| page.records[at].exchange.clone().expect("it was asked for above");
    assert_eq!(exchange(0).request, exchange(1).request, "one request has one digest");
    let keys: Vec<_> =
        page.records.iter().map(|record| record.key.as_ref().map(|key| key.as_str())).collect();
    assert_eq!(keys, [Some("key"), None]);

    // A changed deployment holds from the next record on, without reopening the state.
    let mut next = bed.probe(&first()).await;
    (next.generation, next.retention) = (Generation(2), keeping(1));
    bed.hvm.upgrade(next).await.expect("upgraded");
    bed.post("/kv/incr?k=n", "").await.expect("applied");
    assert_eq!(history(&bed).records.len(), 1);
    bed.hvm.close(&first()).await.expect("closed");
    let last = history(&bed).records.remove(0);
    assert_eq!(
        (last.sequence, last.writes.len()),
        (Sequence(5), 0),
        "the last meter is a record like any other"
    );
}
