//! Upgrades that come with a new ownership, that come late, or that meet each other.

use std::time::Duration;

use bytes::Bytes;
use guests_path::Guest;
use http::Method;
use http_body::Frame;
use http_body_util::StreamBody;
use hvm_runtime::{OpenError, RequestBody, UpgradeError};
use hvm_types::{Epoch, Generation, ReplicaState};

use super::bed::{Bed, first, request};

#[tokio::test]
async fn an_upgrade_with_an_old_epoch_leaves_the_owner_serving() {
    let bed = Bed::new();
    bed.open(&first(), |spec| spec.epoch = Epoch(2)).await;
    let error = bed.hvm.upgrade(bed.probe(&first()).await).await.expect_err("epoch 1 is an old one");
    let UpgradeError::Open(error) = error else { panic!("{error}") };
    assert_eq!(error.fenced_by(), Some(Epoch(2)));
    assert_eq!(bed.post("/kv/incr?k=n", "").await.expect("epoch 2 still owns it").text(), "1");
    let status = bed.status(&first()).expect("open");
    assert_eq!((status.state, status.epoch), (ReplicaState::Ready, Epoch(2)));
}

#[tokio::test]
async fn no_query_fails_while_a_new_epoch_takes_over() {
    let bed = Bed::with_probe().await;
    bed.post("/kv/set?k=a&v=1", "").await.expect("set");
    // Its guest reads the state when its body is there, some time after the upgrade has begun.
    let (begun, begins) = tokio::sync::oneshot::channel::<()>();
    let body = futures::stream::once(async move {
        begins.await.expect("the upgrade begins");
        tokio::time::sleep(Duration::from_millis(50)).await;
        Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(b"body")))
    });
    let mut query = request(Method::GET, "/kv/get?k=a", "");
    *query.body_mut() = RequestBody::new(StreamBody::new(body));
    let id = first();
    let slow = bed.request(&id, query);
    let upgrade = async {
        bed.until(&first(), |status| !status.doing.is_empty()).await;
        let mut spec = bed.probe(&first()).await;
        spec.epoch = Epoch(2);
        begun.send(()).expect("the query runs");
        let others = futures::future::join_all((0..20).map(|_| bed.get("/kv/get?k=a")));
        tokio::join!(bed.hvm.upgrade(spec), others)
    };
    let (slow, (upgraded, others)) = tokio::join!(slow, upgrade);
    upgraded.expect("upgraded");
    assert_eq!(slow.expect("a query that began before").text(), "1");
    for other in others {
        assert_eq!(other.expect("a query that came meanwhile").text(), "1");
    }
    let status = bed.status(&first()).expect("open");
    assert_eq!((status.state, status.epoch), (ReplicaState::Ready, Epoch(2)));
    assert_eq!(bed.post("/kv/incr?k=a", "").await.expect("committed").text(), "2");
}

#[tokio::test]
async fn a_new_epoch_whose_version_does_not_start_runs_the_old_one() {
    let bed = Bed::with_probe().await;
    bed.post("/kv/set?k=a&v=1", "").await.expect("set");
    let mut spec = bed.probe(&first()).await;
    spec.epoch = Epoch(2);
    spec.generation = Generation(2);
    spec.resources.memory = 1;
    let error = bed.hvm.upgrade(spec).await.expect_err("1 MB is too little for its memory");
    assert!(matches!(error, UpgradeError::Open(OpenError::Instance { .. })), "{error}");
    assert_eq!(bed.post("/kv/incr?k=a", "").await.expect("the old version, in the new epoch").text(), "2");
    let status = bed.status(&first()).expect("open");
    assert_eq!(
        (status.state, status.epoch, status.generation),
        (ReplicaState::Ready, Epoch(2), Generation(1))
    );
}

#[tokio::test]
async fn of_two_upgrades_the_later_one_stays() {
    let bed = Bed::with_probe().await;
    let id = first();
    let running = bed.request(&id, request(Method::POST, "/sleep?ms=300", ""));
    let upgrades = async {
        bed.until(&first(), |status| !status.doing.is_empty()).await;
        let (mut second, mut third) = (bed.probe(&first()).await, bed.probe(&first()).await);
        (second.generation, third.generation) = (Generation(2), Generation(3));
        third.module = bed.module(Guest::Hello).await;
        tokio::join!(bed.hvm.upgrade(second), bed.hvm.upgrade(third))
    };
    let (slept, (second, third)) = tokio::join!(running, upgrades);
    assert_eq!(slept.expect("finished on the first version").status(), 204);
    second.expect("upgraded");
    third.expect("upgraded");
    assert_eq!(bed.status(&first()).expect("open").generation, Generation(3));
    assert!(bed.get("/").await.expect("serves").text().to_lowercase().contains("hello"));
}

#[tokio::test]
async fn an_upgrade_of_what_is_closed_meanwhile_says_so() {
    let bed = Bed::with_probe().await;
    let id = first();
    let running = bed.request(&id, request(Method::POST, "/sleep?ms=300", ""));
    let changes = async {
        bed.until(&first(), |status| !status.doing.is_empty()).await;
        let mut spec = bed.probe(&first()).await;
        spec.generation = Generation(2);
        let closing = async {
            // The upgrade's instance stands by: it waits for the command.
            bed.until(&first(), |status| status.instances == 2).await;
            bed.hvm.close(&id).await
        };
        tokio::join!(bed.hvm.upgrade(spec), closing)
    };
    let (slept, (upgraded, closed)) = tokio::join!(running, changes);
    assert_eq!(slept.expect("finished").status(), 204);
    closed.expect("closed");
    assert!(matches!(upgraded, Err(UpgradeError::NotServing { .. })), "{upgraded:?}");
    assert!(bed.status(&first()).is_none());
}
