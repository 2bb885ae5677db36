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
