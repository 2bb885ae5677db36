//! A guest can't delay, starve or read its neighbour, also where they share a worker.

use std::sync::{Arc, Mutex};

use http::Method;
use hvm_runtime::RequestError;
use hvm_types::ReplicaId;

use super::bed::{Bed, first, id, request};

fn neighbour() -> ReplicaId {
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

/// The threads of this process by name.
fn threads() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").expect("proc(5)");
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.map(|name| name.trim().to_owned()).collect()
}

#[tokio::test]
async fn large_instances_go_on_a_thread_of_their_own_and_their_room_is_waited_for() {
    let bed = Bed::with_probe().await;
    for _ in 0..5 {
        assert!(matches!(bed.get("/alloc").await, Err(RequestError::Trapped { .. })));
        // It would not fit beside the one that is going.
        assert_eq!(bed.get("/alloc?mb=40").await.expect("there is room").text(), "40 MiB");
        // What is idle makes room as well.
        assert_eq!(bed.post("/alloc?mb=40", "").await.expect("there is room").text(), "40 MiB");
    }
    assert!(threads().contains(&"hvm-disposal".to_owned()), "{:?}", threads());
}

#[tokio::test]
async fn a_flood_of_commands_is_not_worked_off_before_a_neighbours_request() {
    const FLOOD: usize = 100;
    let bed = Bed::with_probe().await;
    bed.open(&neighbour(), |_| {}).await;
    let ended = Arc::new(Mutex::new(Vec::new()));
    let ask = |id: ReplicaId, method: Method, path: &'static str| {
        let (hvm, ended) = (bed.hvm.clone(), Arc::clone(&ended));
        async move {
            let answer = hvm.request(&id, request(method, path, "")).await;
            assert_eq!(answer.expect("answered").status().as_u16(), 200);
            ended.lock().expect("not poisoned").push(id);
        }
    };
    let flood: Vec<_> =
        (0..FLOOD).map(|_| tokio::spawn(ask(first(), Method::POST, "/spin?n=1000000"))).collect();
    bed.until(&first(), |status| status.mailbox >= 50).await;
    ask(neighbour(), Method::GET, "/").await;
    for command in flood {
        command.await.expect("no panic");
    }
    let ended = ended.lock().expect("not poisoned");
    let place = ended.iter().position(|id| *id == neighbour()).expect("it was answered");
    assert!(place < FLOOD / 2, "{place} commands came first");
}
