//! The life of a partition: open, upgrade, hibernate, close, restart, fenced.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use guests_path::Guest;
use http::Method;
use hvm_runtime::{CloseError, OpenError, RequestError, UpgradeError};
use hvm_types::{Epoch, Generation, InstancePolicy, Period, ReplicaState};

use super::bed::{Bed, first, request};

#[tokio::test]
async fn state_survives_a_restart() {
    let bed = Bed::with_probe().await;
    bed.post("/kv/set?k=a&v=kept", "").await.expect("set");
    let bed = bed.restart().await;
    assert!(matches!(bed.get("/kv/get?k=a").await, Err(RequestError::Unknown { .. })));
    bed.open(&first(), |_| {}).await;
    assert_eq!(bed.get("/kv/get?k=a").await.expect("read").text(), "kept");
    assert!(bed.status(&first()).expect("open").sequence.0 >= 1);
}

#[tokio::test]
async fn a_partition_is_opened_once() {
    let bed = Bed::with_probe().await;
    let again = bed.hvm.open(bed.probe(&first()).await).await;
    assert_eq!(again, Err(OpenError::AlreadyOpen { id: first() }));
    assert_eq!(bed.get("/").await.expect("the first serves on").text(), "probe\n");
}

#[tokio::test]
async fn an_upgrade_under_load_fails_no_request_and_keeps_the_state() {
    let bed = Bed::with_probe().await;
    let done = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (hvm, done) = (bed.hvm.clone(), Arc::clone(&done));
            tokio::spawn(async move {
                let mut applied = 0_u32;
                while !done.load(Ordering::Relaxed) {
                    let command = request(Method::POST, "/kv/incr?k=n", "");
                    let response = hvm.request(&first(), command).await.expect("no command fails");
                    assert_eq!(response.status(), 200);
                    let query = request(Method::GET, "/kv/get?k=n", "");
                    let response = hvm.request(&first(), query).await.expect("no query fails");
                    response.into_body().collect().await.expect("whole");
                    applied += 1;
                }
                applied
            })
        })
        .collect();
    for generation in 2..=6 {
        let mut spec = bed.probe(&first()).await;
        spec.generation = Generation(generation);
        bed.hvm.upgrade(spec).await.expect("upgraded");
        assert_eq!(bed.status(&first()).expect("open").generation, Generation(generation));
        bed.post("/kv/set?k=seen", generation.to_string()).await.expect("between two upgrades");
    }
    done.store(true, Ordering::Relaxed);
    let mut applied = 0;
    for client in clients {
        applied += client.await.expect("a client that saw no failure");
    }
    assert!(applied > 0, "nothing ran during the upgrades");
    assert_eq!(bed.get("/kv/get?k=n").await.expect("read").text(), applied.to_string());
}

#[tokio::test]
async fn an_upgrade_waits_for_the_command_that_runs_and_passes_those_that_wait() {
    let bed = Bed::with_probe().await;
    let running = bed.post("/sleep?ms=200", "");
    let upgrade = async {
        bed.until(&first(), |status| !status.doing.is_empty()).await;
        let mut spec = bed.probe(&first()).await;
        spec.generation = Generation(2);
        spec.env.insert("version".to_owned(), "2".to_owned());
        let waiting = bed.post("/config?k=version", "");
        let (upgraded, waited) = tokio::join!(bed.hvm.upgrade(spec), waiting);
        upgraded.expect("upgraded");
        waited.expect("answered").text()
    };
    let (slept, version) = tokio::join!(running, upgrade);
    assert_eq!(slept.expect("finished on the old version").status(), 204);
    assert_eq!(version, "2");
}

#[tokio::test]
async fn an_upgrade_that_can_not_start_leaves_the_old_version_serving() {
    let bed = Bed::with_probe().await;
    let mut spec = bed.probe(&first()).await;
    spec.generation = Generation(2);
    spec.resources.memory = 1;
    let error = bed.hvm.upgrade(spec).await.expect_err("1 MB is too little for its memory");
    assert!(matches!(error, UpgradeError::Open(OpenError::Instance { .. })), "{error}");

    let mut spec = bed.probe(&first()).await;
    spec.grants.config = false;
    let error = bed.hvm.upgrade(spec).await.expect_err("it needs what is not granted");
    assert!(error.to_string().contains("wasi:config/store"), "{error}");

    let status = bed.status(&first()).expect("open");
    assert_eq!((status.state, status.generation), (ReplicaState::Ready, Generation(1)));
    assert_eq!(bed.get("/").await.expect("serves").text(), "probe\n");
}

#[tokio::test]
async fn an_upgrade_to_another_component_serves_it() {
    let bed = Bed::with_probe().await;
    let mut spec = bed.probe(&first()).await;
    spec.module = bed.module(Guest::Hello).await;
    bed.hvm.upgrade(spec).await.expect("upgraded");
    assert!(bed.get("/").await.expect("serves").text().to_lowercase().contains("hello"));
}

#[tokio::test]
async fn an_upgrade_with_a_new_epoch_takes_the_state_along() {
    let bed = Bed::with_probe().await;
    bed.post("/kv/set?k=a&v=1", "").await.expect("set");
    let mut spec = bed.probe(&first()).await;
    spec.epoch = Epoch(2);
    bed.hvm.upgrade(spec).await.expect("upgraded");
    assert_eq!(bed.post("/kv/incr?k=a", "").await.expect("committed in the new epoch").text(), "2");
    assert_eq!(bed.status(&first()).expect("open").epoch, Epoch(2));

    let mut spec = bed.probe(&first()).await;
    spec.epoch = Epoch(1);
    let error = bed.hvm.upgrade(spec).await.expect_err("an old epoch");
    let UpgradeError::Open(error) = error else { panic!("{error}") };
    assert_eq!(error.fenced_by(), Some(Epoch(2)));
}

#[tokio::test]
async fn an_old_epoch_does_not_open() {
    let bed = Bed::new();
    bed.open(&first(), |spec| spec.epoch = Epoch(5)).await;
    bed.hvm.close(&first()).await.expect("closed");
    let mut spec = bed.probe(&first()).await;
    spec.epoch = Epoch(4);
    let error = bed.hvm.open(spec).await.expect_err("an old epoch");
    assert_eq!(error.fenced_by(), Some(Epoch(5)));
    assert!(bed.status(&first()).is_none(), "something of it is left");
}

#[tokio::test]
async fn closing_finishes_what_was_accepted_and_takes_nothing_new() {
    let bed = Bed::with_probe().await;
    let accepted = bed.post("/sleep?ms=200", "");
    let close = async {
        bed.until(&first(), |status| !status.doing.is_empty()).await;
        let waiting = bed.post("/kv/set?k=a&v=1", "");
        let closing = async {
            bed.until(&first(), |status| status.mailbox == 1).await;
            let refused = async {
                bed.until(&first(), |status| status.state == ReplicaState::Draining).await;
                bed.get("/").await.expect_err("it takes nothing new")
            };
            let closing = bed.hvm.clone();
            let closed = async move { closing.close(&first()).await };
            tokio::join!(closed, refused)
        };
        tokio::join!(waiting, closing)
    };
    let (slept, (waited, (closed, refused))) = tokio::join!(accepted, close);
    assert_eq!(slept.expect("finished").status(), 204);
    assert_eq!(waited.expect("finished").status(), 204);
    closed.expect("closed");
    assert_eq!((refused.status().as_u16(), refused.retry_after().is_some()), (503, true));
    assert!(bed.status(&first()).is_none());
    assert_eq!(bed.hvm.close(&first()).await, Err(CloseError::Unknown { id: first() }));

    bed.open(&first(), |_| {}).await;
    assert_eq!(bed.get("/kv/get?k=a").await.expect("read").text(), "1");
}

#[tokio::test]
async fn an_idle_partition_hibernates_and_the_next_request_wakes_it() {
    let bed = Bed::with(|config| config.hibernate_after = Duration::from_millis(50));
    bed.open(&first(), |_| {}).await;
    bed.get("/").await.expect("answered");
    bed.until(&first(), |status| status.state == ReplicaState::Hibernated).await;
    let asleep = bed.status(&first()).expect("open");
    assert_eq!((asleep.instances, asleep.memory.0), (0, 0));
    assert_eq!(bed.get("/").await.expect("it wakes").text(), "probe\n");
}

#[tokio::test]
async fn an_instance_per_request_keeps_nothing() {
    let bed = Bed::new();
    bed.open(&first(), |spec| spec.instance = InstancePolicy::PerRequest).await;
    for _ in 0..3 {
        assert_eq!(bed.post("/counter-in-memory", "").await.expect("counted").text(), "1");
    }
}

#[tokio::test]
async fn the_hvm_stops_with_guests_that_hang_and_says_so_to_those_who_ask() {
    let bed = Bed::new();
    bed.open(&first(), |spec| spec.resources.deadline = Period(Duration::from_millis(300))).await;
    let hvm = bed.hvm.clone();
    let hanging =
        tokio::spawn(
            async move { hvm.request(&first(), request(Method::POST, "/loop", "")).await.map(drop) },
        );
    bed.until(&first(), |status| !status.doing.is_empty()).await;
    let other = bed.hvm.clone();
    other.shutdown().await;
    let error = hanging.await.expect("no panic").expect_err("the guest was stopped");
    assert!(matches!(error, RequestError::Deadline { .. }), "{error}");
    assert_eq!(bed.get("/").await.expect_err("nobody is there"), RequestError::Stopped);
}
