//! A host whose state other hosts reach.

use std::path::PathBuf;

use hvm_agent::{StateStore, partition_of};
use hvm_runtime::state::{SharedConfig, SharedEngine, SharedStore, StateEngine as _};

use crate::support::{Host, Image, Keys, Scheduler, assignments, document, eventually};

/// The path of a command for one of two partitions.
fn increment(partition: u32) -> String {
    let found = (0..).map(|n| format!("key-{n}")).find(|key| partition_of(key.as_bytes(), 2) == partition);
    format!("/kv/incr?k={}", found.expect("some key"))
}

/// What another host with the same store does when it is told to delete a partition.
async fn delete(store: PathBuf, at_hand: PathBuf, partition: &'static str) {
    let deleting = move || {
        let store = SharedStore::directory(&store).expect("the store");
        let host = "b".parse().expect("a host id");
        let engine = SharedEngine::start(SharedConfig::new(host, store, at_hand)).expect("an engine");
        engine.remove(&partition.parse().expect("a partition")).expect("it is deleted");
    };
    tokio::task::spawn_blocking(deleting).await.expect("it ends well");
}

#[tokio::test]
async fn without_word_from_the_scheduler_a_host_opens_only_what_is_still_in_the_store() {
    let (keys, mut scheduler) = (Keys::new(), Scheduler::start().await);
    let shared = tempfile::tempdir().expect("a temporary directory");
    let store = shared.path().join("state");
    let image = Image::probe("1.0.0", &keys);
    scheduler.put_image(&image);
    let mut host = Host::new("a", &scheduler.url(), Some(keys.policy()));
    host.config_mut().state = StateStore::Directory(store.clone());
    host.start().await;
    assert!(host.agent().host().store.is_some(), "it says which store it has");
    scheduler.put_document("a", document(1, assignments(0..2, 1, image.manifest()), 2, &[host.entry()]));
    scheduler.reported("a", |reported| reported.all_ready(2, 1)).await;
    for partition in 0..2 {
        assert_eq!(host.client().post(&increment(partition), "").await.text(), "1");
    }
    scheduler.kill().await;
    host.stop().await;
    delete(store, shared.path().join("at-hand"), "shop/parts/1").await;

    host.start().await;
    let client = &host.client();
    eventually("what is in the store is served", || async move {
        let answer = client.get(&increment(0).replace("incr", "get")).await;
        answer.status == 200 && answer.text() == "1"
    })
    .await;
    let deleted = client.post(&increment(1), "").await;
    assert_eq!((deleted.status.as_u16(), deleted.error("kind").as_str()), (503, "starting"));

    // With the scheduler's word it is opened: then it is meant to begin anew.
    scheduler.resume().await;
    scheduler.reported("a", |reported| reported.all_ready(2, 1)).await;
    assert_eq!(host.client().post(&increment(1), "").await.text(), "1");
    assert_eq!(host.client().post(&increment(0), "").await.text(), "2");
    host.stop().await;
}
