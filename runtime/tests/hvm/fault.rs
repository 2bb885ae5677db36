//! Guests that trap, loop, take without end, or never answer: each fails its request, with a typed reason, and
//! the partition serves on.

use std::sync::Arc;
use std::time::Duration;

use hvm_runtime::{LogLine, LogSink, RequestError, Trap};
use hvm_types::{ByteSize, Period, ReplicaId};

use super::bed::{Bed, first};

const DEADLINE: Duration = Duration::from_millis(400);

async fn serves(bed: &Bed) {
    assert_eq!(bed.get("/").await.expect("queries go on").text(), "probe\n");
    assert_eq!(bed.post("/echo", "on").await.expect("commands go on").text(), "on");
}

fn trap_of<T: std::fmt::Debug>(result: Result<T, RequestError>) -> Trap {
    match result {
        Err(error @ RequestError::Trapped { .. }) => {
            assert_eq!(error.status(), 500);
            let RequestError::Trapped { trap } = error else { unreachable!("matched above") };
            trap
        }
        other => panic!("not trapped: {other:?}"),
    }
}

#[tokio::test]
async fn a_trap_says_which() {
    let bed = Bed::with_probe().await;
    for (kind, words) in [
        ("unreachable", "unreachable"),
        ("panic", "unreachable"),
        ("divide", "divide by zero"),
        ("out-of-bounds", "out of bounds memory access"),
    ] {
        let path = format!("/trap?kind={kind}");
        for trap in [trap_of(bed.get(&path).await), trap_of(bed.post(&path, "").await)] {
            assert!(trap.to_string().contains(words), "{kind}: {trap}");
        }
        serves(&bed).await;
    }
}

#[tokio::test]
async fn a_guest_that_never_ends_is_stopped_at_its_deadline() {
    let bed = Bed::with_hasty_probe(DEADLINE).await;
    for path in ["/loop", "/hang"] {
        for result in [bed.get(path).await, bed.post(path, "").await] {
            let error = result.expect_err("no answer");
            assert_eq!(error, RequestError::Deadline { limit: DEADLINE });
            assert_eq!(error.status(), 504);
        }
        serves(&bed).await;
    }
}

#[tokio::test]
async fn a_guest_that_takes_memory_without_end_is_stopped_at_its_limit() {
    let bed = Bed::with_probe().await;
    let limit = ByteSize::mib(64);
    assert_eq!(trap_of(bed.get("/alloc").await), Trap::Memory { limit });
    assert_eq!(trap_of(bed.post("/alloc", "").await), Trap::Memory { limit });
    serves(&bed).await;
    assert_eq!(bed.get("/alloc?mb=20").await.expect("within the limit").text(), "20 MiB");
}

#[tokio::test]
async fn an_idle_instance_gives_its_memory_up_for_one_that_works() {
    let bed = Bed::with_probe().await;
    for _ in 0..2 {
        // The query's instance keeps its memory while it is idle: with the command's that is more than 64 MB.
        assert_eq!(bed.get("/alloc?mb=40").await.expect("within the limit").text(), "40 MiB");
        assert!(bed.status(&first()).expect("open").memory >= ByteSize::mib(40));
        assert_eq!(bed.post("/alloc?mb=40", "").await.expect("within the limit").text(), "40 MiB");
    }
    assert!(bed.status(&first()).expect("open").memory <= ByteSize::mib(64));
}

#[tokio::test]
async fn idle_instances_of_neighbours_give_the_hosts_memory_up() {
    let bed = Bed::with(|config| config.memory = ByteSize::mib(48));
    let neighbour: ReplicaId = "test/probe/1".parse().expect("a valid id");
    bed.open(&first(), |_| {}).await;
    bed.open(&neighbour, |_| {}).await;
    for _ in 0..2 {
        assert_eq!(bed.get("/alloc?mb=30").await.expect("within the limit").text(), "30 MiB");
        let other = super::bed::request(http::Method::GET, "/alloc?mb=30", "");
        assert_eq!(bed.request(&neighbour, other).await.expect("within the limit").text(), "30 MiB");
    }
}

#[tokio::test]
async fn all_partitions_together_have_a_limit() {
    let bed = Bed::with(|config| config.memory = ByteSize::mib(16));
    bed.open(&first(), |_| {}).await;
    assert_eq!(trap_of(bed.get("/alloc").await), Trap::HostMemory);
    serves(&bed).await;
}

#[tokio::test]
async fn a_guest_that_recurses_without_end_is_stopped() {
    let bed = Bed::with_probe().await;
    // A Rust guest's own stack is in its memory, and ends in a load out of bounds if it ends first.
    for trap in [trap_of(bed.get("/recurse").await), trap_of(bed.post("/recurse", "").await)] {
        let text = trap.to_string();
        assert!(trap == Trap::Stack || text.contains("out of bounds"), "{text}");
    }
    serves(&bed).await;
}

#[tokio::test]
async fn a_guest_that_takes_host_resources_without_end_is_stopped() {
    let bed = Bed::with_probe().await;
    assert!(matches!(trap_of(bed.get("/leak").await), Trap::Resources { .. }));
    serves(&bed).await;
}

#[tokio::test]
async fn an_instance_that_leaks_is_not_used_again() {
    let bed = Bed::with_probe().await;
    assert_eq!(bed.post("/counter-in-memory", "").await.expect("counted").text(), "1");
    bed.post("/leak?n=500", "").await.expect("within the limit");
    assert_eq!(bed.post("/counter-in-memory", "").await.expect("counted").text(), "1");
}

#[tokio::test]
async fn a_guest_that_returns_without_an_answer_is_found_out() {
    let bed = Bed::with_probe().await;
    for result in [bed.get("/silent").await, bed.post("/silent", "").await] {
        let error = result.expect_err("no answer");
        assert_eq!((&error, error.status().as_u16()), (&RequestError::NoResponse, 500));
    }
    serves(&bed).await;
}

#[tokio::test]
async fn a_command_that_answers_half_has_not_answered() {
    let bed = Bed::with_hasty_probe(DEADLINE).await;
    trap_of(bed.post("/half?then=trap", "").await);
    for then in ["stop", "finish"] {
        let error = bed.post(&format!("/half?then={then}"), "").await.expect_err("half an answer");
        assert_eq!(error, RequestError::ResponseIncomplete, "{then}");
    }
    for then in ["hang", "loop"] {
        let error = bed.post(&format!("/half?then={then}"), "").await.expect_err("half an answer");
        assert_eq!(error, RequestError::Deadline { limit: DEADLINE }, "{then}");
    }
    serves(&bed).await;
}

#[tokio::test]
async fn a_command_that_sends_100_mb_is_stopped_at_its_limit() {
    let bed = Bed::with_probe().await;
    let error = bed.post("/big", "").await.expect_err("too much");
    assert_eq!(error, RequestError::ResponseTooLarge { limit: ByteSize::mib(8) });
    serves(&bed).await;
}

#[tokio::test]
async fn a_query_that_sends_100_mb_to_nobody_is_stopped_at_its_deadline() {
    let bed = Bed::new();
    bed.open(&first(), |spec| spec.resources.deadline = Period(DEADLINE)).await;
    let request = super::bed::request(http::Method::GET, "/big", "");
    let response = bed.hvm.request(&first(), request).await.expect("a head");
    // Nobody reads: the guest waits, with a bounded part of its answer held by the host.
    bed.until(&first(), |status| status.doing.is_empty()).await;
    let error = response.into_body().collect().await.expect_err("broken off");
    assert_eq!(error, RequestError::Deadline { limit: DEADLINE });
    serves(&bed).await;
}

/// A sink that breaks its promise not to panic.
struct PanickingSink;

impl LogSink for PanickingSink {
    fn write(&self, _id: &ReplicaId, line: LogLine) {
        assert!(!line.text.contains("panic now"), "asked to");
    }
}

#[tokio::test]
async fn a_fault_of_the_host_fails_its_request_and_nothing_else() {
    let bed = Bed::with(|config| config.log = Arc::new(PanickingSink));
    bed.open(&first(), |_| {}).await;
    for result in [bed.post("/log?m=panic+now", "").await, bed.get("/log?m=panic+now").await] {
        let error = result.expect_err("the host failed");
        assert!(matches!(error, RequestError::Internal { .. }), "{error}");
        serves(&bed).await;
    }
    bed.hvm.close(&first()).await.expect("nothing is left running");
}

#[tokio::test]
async fn a_failure_is_told_to_the_partitions_log() {
    let bed = Bed::with_probe().await;
    trap_of(bed.post("/trap?kind=divide", "").await);
    let told = bed.lines.all();
    assert!(told.iter().any(|line| line.text.contains("divide by zero")), "{told:?}");
}
