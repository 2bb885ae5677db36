//! The typed world `hvm:app`: calls keep the rules that requests keep, and a component without HTTP is reached over
//! HTTP all the same.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use guests_path::Guest;
use http::Method;
use hvm_runtime::{Call, CallError, Failure, FailureKind, Hvm, PartitionSpec, RequestError, Trap};
use hvm_types::{ByteSize, Period, ReplicaId};

use super::bed::{Bed, all_grants, first, keyed, request};

async fn open(bed: &Bed, guest: Guest, change: impl FnOnce(&mut PartitionSpec)) {
    let mut spec = PartitionSpec::new(first(), bed.module(guest).await);
    spec.grants = all_grants();
    change(&mut spec);
    bed.hvm.open(spec).await.expect("it opens");
}

/// An HVM with one typed partition.
async fn typed() -> Bed {
    let bed = Bed::new();
    open(&bed, Guest::Typed, |_| {}).await;
    bed
}

async fn command(bed: &Bed, name: &'static str, payload: &'static str) -> Result<Bytes, CallError> {
    bed.hvm.call(&first(), Call::command(name, payload)).await
}

async fn query(bed: &Bed, name: &'static str, payload: &'static str) -> Result<Bytes, CallError> {
    bed.hvm.call(&first(), Call::query(name, payload)).await
}

/// Runs a task on the worker that owns the partition.
async fn on_worker<T, F>(bed: &Bed, task: impl FnOnce(Hvm, ReplicaId) -> F + Send + 'static) -> T
where
    F: Future<Output = T> + 'static,
    T: Send + 'static,
{
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let hvm = bed.hvm.clone();
    let make = move || async move { drop(sender.send(task(hvm, first()).await)) };
    bed.hvm.workers()[0].spawn(make).await.expect("the worker runs");
    receiver.await.expect("the task ended")
}

#[tokio::test]
async fn what_a_command_wrote_is_there_for_queries_from_here_and_from_the_worker() {
    let bed = typed().await;
    assert_eq!(command(&bed, "set", "1").await, Ok(Bytes::new()));
    assert_eq!(query(&bed, "get", "").await, Ok(Bytes::from("1")));
    let there = on_worker(&bed, async |hvm, id| {
        let set = hvm.call(&id, Call::command("increment", "")).await;
        (set, hvm.call(&id, Call::query("get".to_owned(), "")).await)
    });
    assert_eq!(there.await, (Ok(Bytes::from("2")), Ok(Bytes::from("2"))));
    assert_eq!(bed.status(&first()).expect("open").sequence.0, 2);
}

#[tokio::test]
async fn a_command_that_fails_or_is_stopped_changes_nothing_and_loses_its_instance() {
    let bed = Bed::new();
    open(&bed, Guest::Typed, |spec| spec.resources.deadline = Period(Duration::from_millis(300))).await;
    command(&bed, "set", "before").await.expect("set");
    for name in ["set-then-fail", "set-then-trap", "set-then-loop"] {
        assert_eq!(command(&bed, "count-in-memory", "").await, Ok(Bytes::from("1")), "before {name}");
        let error = command(&bed, name, "after").await.expect_err("it fails");
        match (name, error) {
            ("set-then-fail", CallError::Failed(Failure { kind, message })) => {
                assert_eq!((kind, message.as_str()), (FailureKind::Conflict, "it was told to fail"));
            }
            ("set-then-trap", CallError::Request(RequestError::Trapped { trap: Trap::Wasm { .. } }))
            | ("set-then-loop", CallError::Request(RequestError::Deadline { .. })) => {}
            (name, error) => panic!("{name}: {error}"),
        }
        assert_eq!(query(&bed, "get", "").await, Ok(Bytes::from("before")), "{name}");
    }
    assert_eq!(bed.status(&first()).expect("open").sequence.0, 1);
}

#[tokio::test]
async fn a_query_cannot_write_and_its_instance_serves_on_unless_it_is_stopped() {
    let bed = typed().await;
    let refused = query(&bed, "write", "1").await.expect_err("a query writes");
    assert!(
        matches!(&refused, CallError::Failed(failure) if failure.message.contains("can't write")),
        "{refused}"
    );
    let count = async || query(&bed, "count-in-memory", "").await.expect("counted");
    assert_eq!((count().await, count().await), (Bytes::from("1"), Bytes::from("2")));
    assert!(matches!(query(&bed, "fail", "").await, Err(CallError::Failed(_))));
    assert_eq!(count().await, "3");
    let trapped = query(&bed, "trap", "").await;
    assert!(matches!(trapped, Err(CallError::Request(RequestError::Trapped { .. }))), "{trapped:?}");
    assert_eq!(count().await, "1", "an instance that trapped serves on");
}

#[tokio::test]
async fn one_idempotency_key_is_applied_once() {
    let bed = typed().await;
    let id = first();
    let keyed = |name: &'static str, key: &str| {
        let key = key.parse().expect("a valid key");
        bed.hvm.call(&id, Call::command(name, "").with_idempotency_key(key))
    };
    let answers = futures::future::join_all((0..10).map(|_| keyed("increment", "k"))).await;
    assert!(answers.iter().all(|answer| *answer == Ok(Bytes::from("1"))), "{answers:?}");
    assert_eq!(keyed("increment", "other").await, Ok(Bytes::from("2")));
    let mistaken = keyed("set", "k").await;
    assert_eq!(mistaken, Err(CallError::Request(RequestError::IdempotencyMismatch)));
    let by_http = bed.request(&id, super::bed::keyed("k", "/increment", "")).await;
    assert_eq!(by_http.expect_err("it belongs to a call"), RequestError::IdempotencyMismatch);
}

#[tokio::test]
async fn a_query_that_takes_long_goes_on_beside_others_until_its_deadline() {
    let bed = Bed::new();
    open(&bed, Guest::Typed, |spec| spec.resources.deadline = Period(Duration::from_millis(500))).await;
    let (looping, echo, spin) = on_worker(&bed, async |hvm, id| {
        let looping = hvm.call(&id, Call::query("loop", ""));
        let others = async {
            let echo = hvm.call(&id, Call::query("echo", "x")).await;
            (echo, hvm.call(&id, Call::query("spin", "")).await)
        };
        let (looping, (echo, spin)) = tokio::join!(looping, others);
        (looping, echo, spin)
    })
    .await;
    assert!(matches!(looping, Err(CallError::Request(RequestError::Deadline { .. }))), "{looping:?}");
    assert_eq!(echo, Ok(Bytes::from("x")));
    assert!(spin.is_ok(), "{spin:?}");
}

#[tokio::test]
async fn a_query_whose_asker_is_gone_is_ended_and_shown_until_then() {
    let bed = typed().await;
    let (id, hvm) = (first(), bed.hvm.clone());
    let asking = tokio::spawn(async move { hvm.call(&id, Call::query("loop", "")).await });
    bed.until(&first(), |status| status.doing.iter().any(|doing| doing.what == "query loop")).await;
    asking.abort();
    bed.until(&first(), |status| status.doing.is_empty()).await;
}

#[tokio::test]
async fn more_calls_than_lanes_wait_and_are_all_answered() {
    let bed = Bed::with(|config| config.queries_per_partition = 1);
    open(&bed, Guest::Typed, |_| {}).await;
    let bed = Arc::new(bed);
    let id = first();
    let calls = (0..20).map(|n| {
        let name = if n % 5 == 0 { "spin" } else { "echo" };
        bed.hvm.call(&id, Call::query(name, "x"))
    });
    assert!(futures::future::join_all(calls).await.iter().all(Result::is_ok));
    assert_eq!(bed.status(&id).expect("open").mailbox, 0);
}

#[tokio::test]
async fn calls_have_the_limits_that_requests_have() {
    let bed = Bed::new();
    open(&bed, Guest::Typed, |spec| {
        spec.resources.request_body = ByteSize(100);
        spec.resources.response_body = ByteSize(1_000);
    })
    .await;
    let limit = ByteSize(100);
    let long = Bytes::from(vec![0; 101]);
    let too_large = Err(CallError::Request(RequestError::BodyTooLarge { limit }));
    assert_eq!(bed.hvm.call(&first(), Call::query("echo", long.clone())).await, too_large);
    assert_eq!(bed.hvm.call(&first(), Call::command("echo", long)).await, too_large);
    assert_eq!(query(&bed, "zeros", "1000").await.expect("just fits").len(), 1_000);
    let limit = ByteSize(1_000);
    let too_large = Err(CallError::Request(RequestError::ResponseTooLarge { limit }));
    assert_eq!(query(&bed, "zeros", "1001").await, too_large);
    assert_eq!(command(&bed, "zeros", "1001").await, too_large);
    let named = bed.hvm.call(&first(), Call::query("n".repeat(256), "")).await;
    assert!(matches!(named, Err(CallError::Request(RequestError::Invalid { .. }))), "{named:?}");
}

#[tokio::test]
async fn failures_have_the_limit_that_answers_have() {
    let bed = Bed::new();
    let limit = ByteSize(50);
    open(&bed, Guest::Typed, |spec| spec.resources.response_body = limit).await;
    let told = query(&bed, "fail", "no").await.expect_err("it fails");
    assert_eq!(told.to_string(), "the guest failed it: denied: no");
    let long = bed.hvm.call(&first(), Call::query("fail", "no ".repeat(20))).await;
    assert_eq!(long, Err(CallError::Request(RequestError::ResponseTooLarge { limit })));
}

#[tokio::test]
async fn payloads_that_wait_are_bounded() {
    let bed = Bed::with(|config| config.queries_per_partition = 1);
    open(&bed, Guest::Typed, |spec| {
        spec.resources.memory = 16;
        spec.resources.request_body = ByteSize::mib(1);
    })
    .await;
    let ask = |name: &'static str, payload: Bytes| {
        let (id, hvm) = (first(), bed.hvm.clone());
        tokio::spawn(async move { hvm.call(&id, Call::query(name, payload)).await })
    };
    let looping = ask("loop", Bytes::new());
    bed.until(&first(), |status| !status.doing.is_empty()).await;
    let payload = Bytes::from(vec![0; 1 << 20]);
    let waiting: Vec<_> = (0..4).map(|_| ask("echo", payload.clone())).collect();
    bed.until(&first(), |status| status.mailbox == 4).await;
    let refused = ask("echo", payload).await.expect("no panic");
    assert!(matches!(refused, Err(CallError::Request(RequestError::BodiesFull { .. }))), "{refused:?}");
    looping.abort();
    for answer in waiting {
        assert_eq!(answer.await.expect("no panic").expect("echoed").len(), 1 << 20);
    }
}

#[tokio::test]
async fn calls_are_metered_as_requests_are() {
    let bed = typed().await;
    query(&bed, "echo", "four").await.expect("echoed");
    query(&bed, "fail", "").await.expect_err("it fails");
    query(&bed, "trap", "").await.expect_err("it traps");
    command(&bed, "set", "12345").await.expect("set");
    let usage = bed.hvm.usage().partitions.remove(0).meter;
    assert_eq!((usage.succeeded, usage.rejected, usage.failed, usage.refused), (2, 1, 1, 0));
    assert_eq!((usage.received_bytes, usage.sent_bytes), (9, 4));
    assert!(usage.wall > Duration::ZERO && usage.state_written_bytes > 0);
}

#[tokio::test]
async fn a_component_without_http_is_reached_over_http() {
    let bed = typed().await;
    assert_eq!(bed.post("/set", "1").await.expect("answered").status(), 200);
    let got = bed.get("/get").await.expect("answered");
    assert_eq!((got.status(), got.text().as_str()), (200, "1"));
    assert_eq!(got.header("content-type"), Some("application/octet-stream"));
    assert_eq!(bed.get("/echo?a=b").await.expect("answered").text(), "a=b");
    let failed = bed.post("/set-then-fail", "2").await.expect("answered");
    assert_eq!((failed.status(), failed.text().as_str()), (409, "it was told to fail"));
    assert_eq!(bed.get("/get").await.expect("answered").text(), "1");
    assert_eq!(bed.get("/no/such/thing").await.expect("answered").status(), 404);
    let deleted = bed.ask(Method::DELETE, "/get", "").await.expect("answered");
    assert_eq!((deleted.status(), deleted.header("allow")), (405, Some("GET, HEAD, POST")));
    let once = bed.request(&first(), keyed("k", "/increment", "")).await.expect("applied");
    let again = bed.request(&first(), keyed("k", "/increment", "")).await.expect("replayed");
    assert_eq!((once.text(), again.text()), ("2".to_owned(), "2".to_owned()));
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
}

#[tokio::test]
async fn a_stateless_replica_takes_calls_of_both_kinds() {
    let bed = Bed::new();
    open(&bed, Guest::TypedBoth, |spec| {
        spec.stateful = false;
        spec.grants.keyvalue = Vec::new();
    })
    .await;
    assert_eq!(command(&bed, "echo", "x").await, Ok(Bytes::from("x")));
    assert_eq!(query(&bed, "echo", "y").await, Ok(Bytes::from("y")));
}

#[tokio::test]
async fn a_component_may_handle_requests_and_calls() {
    let bed = Bed::new();
    open(&bed, Guest::TypedBoth, |_| {}).await;
    assert_eq!(bed.get("/get").await.expect("answered").text(), "by http\n");
    assert_eq!(query(&bed, "echo", "x").await, Ok(Bytes::from("x")));
}

#[tokio::test]
async fn a_component_without_typed_handler_refuses_calls() {
    let bed = Bed::with_probe().await;
    let refused = Err(CallError::Request(RequestError::NoTypedHandler));
    assert_eq!(query(&bed, "echo", "x").await, refused);
    assert_eq!(command(&bed, "echo", "x").await, refused);
    let unknown = bed.hvm.call(&super::bed::id("test/none/0"), Call::query("echo", "x")).await;
    assert!(matches!(unknown, Err(CallError::Request(RequestError::Unknown { .. }))), "{unknown:?}");
    let answer = bed.request(&first(), request(Method::GET, "/", "")).await.expect("answered");
    assert_eq!(answer.text(), "probe\n");
}

#[tokio::test]
async fn the_example_counts_by_calls_and_over_http() {
    let bed = Bed::new();
    open(&bed, Guest::Counter, |_| {}).await;
    assert_eq!(command(&bed, "counters/red", "5").await, Ok(Bytes::from("5")));
    assert_eq!(bed.post("/counters/red", "2").await.expect("counted").text(), "7");
    assert_eq!(query(&bed, "counters/red", "").await, Ok(Bytes::from("7")));
    for (name, kind) in [("counters/blue", FailureKind::NotFound), ("blue", FailureKind::NotFound)] {
        let failed = query(&bed, name, "").await.expect_err("there is none");
        assert!(matches!(&failed, CallError::Failed(failure) if failure.kind == kind), "{failed}");
    }
    let failed = command(&bed, "counters/red", "many").await.expect_err("no number");
    assert!(
        matches!(&failed, CallError::Failed(failure) if failure.kind == FailureKind::Invalid),
        "{failed}"
    );
}
