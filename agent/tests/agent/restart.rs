//! Without a scheduler, and over a restart.

use crate::support::{Host, Image, Keys, Scheduler, assignments, document, eventually};

#[tokio::test]
async fn losing_the_scheduler_stops_nothing_and_a_restart_without_it_serves_what_there_was() {
    let (keys, mut scheduler) = (Keys::new(), Scheduler::start().await);
    let image = Image::probe("1.0.0", &keys);
    scheduler.put_image(&image);
    let mut host = Host::started("a", &scheduler.url(), Some(keys.policy())).await;
    scheduler.put_document("a", document(1, assignments(0..2, 1, image.manifest()), 2, &[host.entry()]));
    scheduler.reported("a", |reported| reported.all_ready(2, 1)).await;
    assert_eq!(host.client().post("/kv/incr?k=n", "").await.text(), "1");

    scheduler.kill().await;
    assert_eq!(host.client().post("/kv/incr?k=n", "").await.text(), "2");
    host.stop().await;

    host.start().await;
    // The first request comes while everything is still being opened: it waits, and is answered.
    let answer = host.client().post("/kv/incr?k=n", "").await;
    assert_eq!((answer.status.as_u16(), answer.text()), (200, "3"));

    scheduler.resume().await;
    scheduler.reported("a", |reported| reported.all_ready(2, 1)).await;
    assert_eq!(host.client().post("/kv/incr?k=n", "").await.text(), "4");
    host.stop().await;
}

#[tokio::test]
async fn a_host_that_never_had_a_document_says_so_instead_of_denying_its_routes() {
    let mut host = Host::started("a", "http://127.0.0.1:9", None).await;
    let answer = host.client().get("/kv/get?k=n").await;
    assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (503, Some("1")));
    assert_eq!(answer.error("kind"), "no-document");
    host.stop().await;
}

#[tokio::test]
async fn logs_and_meters_survive_a_restart() {
    let (keys, scheduler) = (Keys::new(), Scheduler::start().await);
    let image = Image::probe("1.0.0", &keys);
    scheduler.put_image(&image);
    let mut host = Host::started("a", &scheduler.url(), Some(keys.policy())).await;
    scheduler.put_document("a", document(1, assignments(0..1, 1, image.manifest()), 1, &[host.entry()]));
    scheduler.reported("a", |reported| reported.all_ready(1, 1)).await;
    host.client().post("/log?k=n&m=remember-me", "").await;
    for _ in 0..5 {
        host.client().post("/kv/incr?k=n", "").await;
    }
    host.stop().await;
    host.start().await;
    scheduler.reported("a", |reported| reported.all_ready(1, 1)).await;
    let host = &host;
    eventually("the usage before the restart is there", || async move {
        crate::api::usage(host)
            .await
            .iter()
            .any(|(replica, requests)| replica == "shop/parts/0" && *requests == 6)
    })
    .await;
    let lines = crate::api::log_texts(host, "shop", 100).await;
    assert!(lines.iter().any(|line| line.contains("remember-me")), "{lines:?}");
}

#[tokio::test]
async fn a_scheduler_that_forgot_everything_stops_nothing() {
    let (keys, scheduler) = (Keys::new(), Scheduler::start().await);
    let image = Image::probe("1.0.0", &keys);
    scheduler.put_image(&image);
    let mut host = Host::started("a", &scheduler.url(), Some(keys.policy())).await;
    scheduler.put_document("a", document(7, assignments(0..1, 1, image.manifest()), 1, &[host.entry()]));
    scheduler.reported("a", |reported| reported.all_ready(1, 1) && reported.applied == 7).await;

    // What a scheduler on an empty directory sends.
    scheduler.put_document("a", hvm_types::HostDocument::default());
    // Newer than that: when it is reported, the one before was seen.
    let wider = document(8, assignments(0..2, 1, image.manifest()), 2, &[host.entry()]);
    for count in 1..=100 {
        assert_eq!(host.client().post("/kv/incr?k=n", "").await.text(), count.to_string());
    }
    scheduler.put_document("a", wider);
    scheduler
        .reported("a", |reported| {
            assert!(reported.find("shop/parts/0").is_some_and(|report| report.state.serves()));
            reported.all_ready(2, 1)
        })
        .await;
    host.stop().await;
}

#[tokio::test]
async fn a_scheduler_that_hangs_does_not_hold_up_what_is_here() {
    let (keys, scheduler) = (Keys::new(), Scheduler::start().await);
    let image = Image::probe("1.0.0", &keys);
    scheduler.put_image(&image);
    let mut host = Host::started("a", &scheduler.url(), Some(keys.policy())).await;
    scheduler.put_document("a", document(1, assignments(0..1, 1, image.manifest()), 1, &[host.entry()]));
    scheduler.reported("a", |reported| reported.all_ready(1, 1)).await;
    host.stop().await;

    scheduler.hang_images();
    host.start().await;
    // Each waits some seconds for the partition; together less than a fetch may take.
    let mut statuses = Vec::new();
    for _ in 0..3 {
        statuses.push(host.client().post("/kv/incr?k=n", "").await.status.as_u16());
    }
    assert!(statuses.contains(&200), "{statuses:?}");
    host.stop().await;
}
