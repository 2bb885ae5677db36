//! Limits of mailbox, bodies and instances: one more is refused, and told when to try again.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt as _, StreamBody};
use hvm_runtime::{OpenError, RequestBody, RequestError};
use hvm_types::{ByteSize, Period, ReplicaId};

use super::bed::{Bed, first, id, request};

#[tokio::test]
async fn a_full_mailbox_refuses_with_when_to_try_again() {
    let bed = Bed::new();
    bed.open(&first(), |spec| spec.resources.mailbox = 2).await;
    // Long enough that a busy machine sees the mailbox full before it ends.
    let running = bed.post("/sleep?ms=3000", "");
    let others = async {
        bed.until(&first(), |status| !status.doing.is_empty()).await;
        let (first_waits, second_waits) = (bed.post("/echo", "1"), bed.post("/echo", "2"));
        let refused = async {
            bed.until(&first(), |status| status.mailbox == 2).await;
            let command = bed.post("/echo", "3").await.expect_err("no room");
            let query = bed.get("/").await.expect_err("no room");
            (command, query)
        };
        tokio::join!(first_waits, second_waits, refused)
    };
    let (_, (one, two, (command, query))) = tokio::join!(running, others);
    assert_eq!((one.expect("waited").text(), two.expect("waited").text()), ("1".into(), "2".into()));
    for error in [command, query] {
        assert_eq!(error, RequestError::MailboxFull { id: first(), limit: 2 });
        assert_eq!((error.status().as_u16(), error.retry_after()), (503, Some(Duration::from_secs(1))));
    }
    assert_eq!(bed.status(&first()).expect("open").mailbox, 0);
}

/// A body without a stated length.
fn chunked(chunks: Vec<&'static [u8]>) -> RequestBody {
    let frames =
        chunks.into_iter().map(|chunk| Ok::<_, std::io::Error>(http_body::Frame::data(chunk.into())));
    RequestBody::new(StreamBody::new(futures::stream::iter(frames)))
}

fn post(body: RequestBody) -> Request<RequestBody> {
    Request::post("/echo").body(body).expect("a valid request")
}

#[tokio::test]
async fn a_body_of_any_length_up_to_the_limit_is_taken() {
    let bed = Bed::new();
    bed.open(&first(), |spec| spec.resources.request_body = ByteSize(8)).await;
    let whole = bed.request(&first(), post(chunked(vec![b"abc", b"", b"de", b"fgh"]))).await;
    assert_eq!(whole.expect("echoed").text(), "abcdefgh");
    let long = bed.request(&first(), post(chunked(vec![b"abcde", b"fghi"]))).await;
    let error = long.expect_err("nine bytes");
    assert_eq!((&error, error.status().as_u16()), (&RequestError::BodyTooLarge { limit: ByteSize(8) }, 413));

    let mut stated = post(chunked(vec![]));
    stated.headers_mut().insert("content-length", 9.into());
    let error = bed.request(&first(), stated).await.expect_err("nine bytes");
    assert_eq!(error, RequestError::BodyTooLarge { limit: ByteSize(8) });
}

#[tokio::test]
async fn a_sender_that_breaks_off_or_stalls_holds_up_nobody() {
    let bed = Bed::with_hasty_probe(Duration::from_millis(400)).await;
    let broken = futures::stream::iter([
        Ok(http_body::Frame::data(Bytes::from_static(b"half"))),
        Err(std::io::Error::other("the sender is gone")),
    ]);
    let error = bed.request(&first(), post(RequestBody::new(StreamBody::new(broken)))).await;
    assert!(matches!(error, Err(RequestError::BodyBroken { .. })), "{error:?}");
    let usage = bed.hvm.usage().partitions;
    let received: u64 = usage.iter().map(|partition| partition.meter.received_bytes).sum();
    assert_eq!(received, 4, "what came is billed, whatever becomes of it");

    let stalled = futures::stream::pending::<Result<http_body::Frame<Bytes>, std::io::Error>>();
    let id = first();
    let stalled = bed.request(&id, post(RequestBody::new(StreamBody::new(stalled))));
    let others = async {
        bed.until(&first(), |status| status.mailbox == 1).await;
        bed.post("/echo", "past it").await.expect("answered").text()
    };
    let (stalled, other) = tokio::join!(stalled, others);
    assert_eq!(other, "past it");
    assert!(matches!(stalled, Err(RequestError::BodyBroken { .. })), "{stalled:?}");
}

#[tokio::test]
async fn bodies_that_wait_hold_a_bounded_amount_of_memory() {
    let bed = Bed::new();
    bed.open(&first(), |spec| {
        spec.resources.memory = 16;
        spec.resources.request_body = ByteSize::mib(3);
        spec.resources.mailbox = 100;
    })
    .await;
    let body = Bytes::from(vec![b'x'; 2 << 20]);
    let running = bed.post("/sleep?ms=300", "");
    let others = async {
        bed.until(&first(), |status| !status.doing.is_empty()).await;
        // A quarter of 16 MB has room for two of them.
        futures::future::join_all((0..5).map(|_| bed.post("/echo", body.clone()))).await
    };
    let (_, answers) = tokio::join!(running, others);
    let refused = answers
        .iter()
        .filter(
            |answer| matches!(answer, Err(error @ RequestError::BodiesFull { .. }) if error.status() == 503),
        )
        .count();
    assert_eq!(refused, 3, "{answers:?}");
}

#[tokio::test]
async fn a_full_pool_makes_room_by_dropping_idle_instances() {
    let bed = Bed::with(|config| config.max_instances = 2);
    let ids: Vec<ReplicaId> = (0..6).map(|n| id(&format!("test/probe/{n}"))).collect();
    for id in &ids {
        bed.open(id, |_| {}).await;
    }
    for round in 0..3 {
        for id in &ids {
            let answer = bed.request(id, request(Method::POST, "/kv/incr?k=n", "")).await;
            assert_eq!(answer.expect("answered").text(), (round + 1).to_string());
        }
    }
}

#[tokio::test]
async fn requests_wait_for_a_place_in_the_pool() {
    let bed = Bed::with(|config| config.max_instances = 2);
    let ids: Vec<ReplicaId> = (0..6).map(|n| id(&format!("test/probe/{n}"))).collect();
    for id in &ids {
        bed.open(id, |_| {}).await;
    }
    let asked = ids.iter().map(|id| bed.request(id, request(Method::POST, "/sleep?ms=20", "")));
    for answer in futures::future::join_all(asked).await {
        assert_eq!(answer.expect("a full pool is no error").status(), 204);
    }
}

#[tokio::test]
async fn a_request_that_gets_no_place_in_time_is_told_to_try_again() {
    let bed = Bed::with(|config| config.max_instances = 1);
    bed.open(&first(), |_| {}).await;
    let other = id("test/other/0");
    bed.open(&other, |spec| spec.resources.deadline = Period(Duration::from_millis(200))).await;
    let hvm = bed.hvm.clone();
    let looping =
        tokio::spawn(
            async move { hvm.request(&first(), request(Method::POST, "/loop", "")).await.map(drop) },
        );
    bed.until(&first(), |status| !status.doing.is_empty()).await;
    let error = bed.request(&other, request(Method::GET, "/", "")).await.expect_err("no place");
    assert_eq!((&error, error.status().as_u16()), (&RequestError::HostFull, 503));
    assert!(error.retry_after().is_some());
    looping.abort();
}

#[tokio::test]
async fn response_headers_of_a_command_come_along() {
    let bed = Bed::with_probe().await;
    let answer = bed.post("/echo", "x").await.expect("echoed");
    assert_eq!(answer.header("content-type"), Some("application/octet-stream"));
    let body = chunked(vec![b"a"]).collect().await.expect("whole").to_bytes();
    assert_eq!(body, "a");
}

#[tokio::test]
async fn a_deadline_of_ages_is_refused() {
    let bed = Bed::new();
    let mut spec = bed.probe(&first()).await;
    spec.resources.deadline = Period(Duration::MAX);
    let error = bed.hvm.open(spec).await.expect_err("no clock counts that far");
    assert!(matches!(error, OpenError::Invalid { .. }), "{error}");
}
