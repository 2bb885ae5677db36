//! From documents to what runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hvm_agent::partition_of;
use hvm_types::{Epoch, ReplicaState};

use crate::support::{Host, Image, Keys, Reported, Scheduler, assignments, document};

#[tokio::test]
async fn a_document_leads_to_durable_answers_from_the_owner_of_each_key() {
    let (keys, scheduler) = (Keys::new(), Scheduler::start().await);
    let image = Image::probe("1.0.0", &keys);
    scheduler.put_image(&image);
    let mut host = Host::started("a", &scheduler.url(), Some(keys.policy())).await;
    let desired = document(1, assignments(0..4, 1, image.manifest()), 4, &[host.entry()]);
    scheduler.put_document("a", desired);
    let reported =
        scheduler.reported("a", |reported| reported.all_ready(4, 1) && reported.applied == 1).await;
    assert!(
        reported.replicas.iter().all(|report| report.epoch == Epoch(1) && report.image == image.manifest())
    );

    let client = host.client();
    for key in ["a", "b", "c", "d", "e", "f"] {
        let answer = client.post(&format!("/kv/set?k={key}&v=value-{key}"), "").await;
        assert_eq!(answer.status, 204, "{}", answer.text());
        let owner = format!("shop/parts/{}", partition_of(key.as_bytes(), 4));
        assert_eq!(answer.header("hvm-partition"), Some(owner.as_str()));
        assert_eq!(client.get(&format!("/kv/get?k={key}")).await.text(), format!("value-{key}"));
    }
    host.stop().await;
}

#[tokio::test]
async fn a_host_where_nothing_changes_reports_nothing_and_everything_to_a_scheduler_that_forgot() {
    let (keys, scheduler) = (Keys::new(), Scheduler::start().await);
    let image = Image::probe("1.0.0", &keys);
    scheduler.put_image(&image);
    let mut host = Host::started("a", &scheduler.url(), Some(keys.policy())).await;
    let desired = document(1, assignments(0..8, 1, image.manifest()), 8, &[host.entry()]);
    scheduler.put_document("a", desired);
    let settled = |reported: &Reported| reported.all_ready(8, 1) && reported.applied == 1;
    scheduler.reported("a", |reported| settled(reported) && reported.heartbeats > 0).await;
    let before = scheduler.reported("a", settled).await;
    let later = |reported: &Reported| reported.heartbeats >= before.heartbeats + 2;
    let after = scheduler.reported("a", later).await;
    assert_eq!((after.whole, after.changes), (before.whole, before.changes));

    scheduler.forget_reports("a");
    let again = scheduler.reported("a", settled).await;
    assert_eq!(again.whole, 1, "everything is reported, once");
    host.stop().await;
}

#[tokio::test]
async fn a_new_generation_takes_over_under_load_without_a_failed_request() {
    let (keys, scheduler) = (Keys::new(), Scheduler::start().await);
    let images = [Image::probe("1.0.0", &keys), Image::probe("1.1.0", &keys)];
    images.iter().for_each(|image| scheduler.put_image(image));
    let mut host = Host::started("a", &scheduler.url(), Some(keys.policy())).await;
    let desired = |generation: u64, image: &Image| {
        document(generation, assignments(0..2, generation, image.manifest()), 2, &[host.entry()])
    };
    scheduler.put_document("a", desired(1, &images[0]));
    scheduler.reported("a", |reported| reported.all_ready(2, 1)).await;

    let is_over = Arc::new(AtomicBool::new(false));
    let load = tokio::spawn({
        let (client, is_over) = (host.client(), Arc::clone(&is_over));
        async move {
            let mut count = 0_u64;
            while !is_over.load(Ordering::Relaxed) {
                count += 1;
                let answer = client.post("/kv/incr?k=n", "").await;
                assert_eq!((answer.status.as_u16(), answer.text()), (200, count.to_string().as_str()));
            }
            count
        }
    });
    let next = desired(2, &images[1]);
    scheduler.put_document("a", next);
    let reported = scheduler.reported("a", |reported| reported.all_ready(2, 2)).await;
    assert!(reported.replicas.iter().all(|report| report.image == images[1].manifest()));
    is_over.store(true, Ordering::Relaxed);
    let count = load.await.expect("no request failed");
    assert_eq!(host.client().post("/kv/incr?k=n", "").await.text(), (count + 1).to_string());
    host.stop().await;
}

#[tokio::test]
async fn a_generation_that_cannot_be_prepared_leaves_the_old_one_serving_and_says_why() {
    let (keys, scheduler) = (Keys::new(), Scheduler::start().await);
    let good = Image::probe("1.0.0", &keys);
    let unsigned = Image::new(guests_path::Guest::Probe, "1.1.0", &hvm_types::Capability::ALL, None);
    scheduler.put_image(&good);
    scheduler.put_image(&unsigned);
    let mut host = Host::started("a", &scheduler.url(), Some(keys.policy())).await;
    let hosts = [host.entry()];
    scheduler.put_document("a", document(1, assignments(0..1, 1, good.manifest()), 1, &hosts));
    scheduler.reported("a", |reported| reported.all_ready(1, 1)).await;
    scheduler.put_document("a", document(2, assignments(0..1, 2, unsigned.manifest()), 1, &hosts));
    let failed = |state: &ReplicaState| matches!(state, ReplicaState::Failed { .. });
    let reported = scheduler
        .reported("a", |reported| {
            let next = reported.find("shop/parts/0").and_then(|report| report.next.as_ref());
            next.is_some_and(|(_, state)| failed(state))
        })
        .await;
    let report = reported.find("shop/parts/0").expect("reported");
    assert_eq!((report.generation.0, report.image), (1, good.manifest()));
    assert!(report.state.serves(), "{:?}", report.state);
    let (generation, state) = report.next.as_ref().expect("a next generation");
    assert_eq!(generation.0, 2);
    assert!(state.to_string().contains("not signed"), "{state}");
    assert_eq!(host.client().post("/kv/incr?k=n", "").await.text(), "1");
    host.stop().await;
}

#[tokio::test]
async fn what_is_not_wanted_goes_and_its_state_is_deleted_only_when_that_is_asked_for() {
    let (keys, scheduler) = (Keys::new(), Scheduler::start().await);
    let image = Image::probe("1.0.0", &keys);
    scheduler.put_image(&image);
    let mut host = Host::started("a", &scheduler.url(), Some(keys.policy())).await;
    let hosts = [host.entry()];
    let wanted = |version: u64| document(version, assignments(0..1, version, image.manifest()), 1, &hosts);
    let unwanted = |version: u64| document(version, Vec::new(), 1, &hosts);
    let client = host.client();

    scheduler.put_document("a", wanted(1));
    scheduler.reported("a", |reported| reported.all_ready(1, 1)).await;
    assert_eq!(client.post("/kv/incr?k=n", "").await.text(), "1");
    scheduler.put_document("a", unwanted(2));
    scheduler.reported("a", |reported| reported.replicas.is_empty() && reported.applied == 2).await;

    scheduler.put_document("a", wanted(3));
    scheduler.reported("a", |reported| reported.all_ready(1, 3)).await;
    assert_eq!(client.post("/kv/incr?k=n", "").await.text(), "2", "the state was kept");
    let mut purging = unwanted(4);
    purging.purge = vec!["shop/parts/0".parse().expect("a replica")];
    scheduler.put_document("a", purging);
    scheduler.reported("a", |reported| reported.replicas.is_empty() && reported.applied == 4).await;

    scheduler.put_document("a", wanted(5));
    scheduler.reported("a", |reported| reported.all_ready(1, 5)).await;
    assert_eq!(client.post("/kv/incr?k=n", "").await.text(), "1", "the state was deleted");
    host.stop().await;
}
