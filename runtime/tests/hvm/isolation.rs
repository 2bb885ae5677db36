//! A guest can't delay, starve or read its neighbour, also where they share a worker.

use http::Method;
use hvm_runtime::RequestError;

use super::bed::{Bed, first, id, request};

fn neighbour() -> hvm_types::ReplicaId {
    id("test/other/0")
}

#[tokio::test]
async fn neighbours_on_the_same_worker_answer_while_a_guest_loops() {
    let bed = Bed::with_probe().await;
    bed.open(&neighbour(), |_| {}).await;
    let looping = bed.hvm.clone();
    let looping =
        tokio::spawn(
            async move { looping.request(&first(), request(Method::POST, "/loop", "")).await.map(drop) },
        );
    bed.until(&first(), |status| !status.doing.is_empty()).await;
    for n in 1..=100_u32 {
        let answer = bed.request(&neighbour(), request(Method::POST, "/kv/incr?k=n", "")).await;
        assert_eq!(answer.expect("answered").text(), n.to_string());
    }
    // All of that took less than the loop's deadline, in which it never ended.
    assert!(!looping.is_finished(), "the loop ended before its neighbours were done");
    assert!(!bed.status(&first()).expect("open").doing.is_empty());
    looping.abort();
}

#[tokio::test]
async fn queries_of_a_partition_answer_while_its_command_loops() {
    let bed = Bed::with_probe().await;
    let looping = bed.hvm.clone();
    let looping =
        tokio::spawn(
            async move { looping.request(&first(), request(Method::POST, "/loop", "")).await.map(drop) },
        );
    bed.until(&first(), |status| !status.doing.is_empty()).await;
    for _ in 0..20 {
        assert_eq!(bed.get("/").await.expect("answered").text(), "probe\n");
    }
    assert!(!looping.is_finished());
    looping.abort();
}

#[tokio::test]
async fn partitions_have_state_of_their_own() {
    let bed = Bed::with_probe().await;
    bed.open(&neighbour(), |_| {}).await;
    bed.post("/kv/set?k=a&v=mine", "").await.expect("set");
    let other = bed.request(&neighbour(), request(Method::GET, "/kv/get?k=a", "")).await;
    assert_eq!(other.expect("read").status(), 404);
    let listed = bed.request(&neighbour(), request(Method::GET, "/kv/list", "")).await;
    assert_eq!(listed.expect("listed").text(), "");
}

#[tokio::test]
async fn a_partition_that_takes_all_its_memory_leaves_its_neighbour_alone() {
    let bed = Bed::with_probe().await;
    bed.open(&neighbour(), |_| {}).await;
    assert!(matches!(bed.get("/alloc").await, Err(RequestError::Trapped { .. })));
    let other = bed.request(&neighbour(), request(Method::GET, "/alloc?mb=30", "")).await;
    assert_eq!(other.expect("its own memory").text(), "30 MiB");
}

#[tokio::test]
async fn a_worker_serves_what_is_spawned_on_it_and_hands_nothing_over() {
    let bed = Bed::with_probe().await;
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let hvm = bed.hvm.clone();
    let worker = &bed.hvm.workers()[0];
    worker
        .spawn(move || async move {
            let answer = hvm.request(&first(), request(Method::POST, "/kv/incr?k=n", "")).await;
            drop(sender.send(answer.map(|response| response.status().as_u16())));
        })
        .await
        .expect("the worker runs");
    assert_eq!(receiver.await.expect("it ran"), Ok(200));
}
