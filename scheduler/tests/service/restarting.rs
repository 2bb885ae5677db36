//! A scheduler that ends and comes again finds what it left, and disturbs nothing.

use hvm_scheduler::{Scheduler, SchedulerConfig};
use tokio::net::TcpListener;

use super::fake::{Town, carts, front, shop};

#[tokio::test]
async fn a_restarted_scheduler_sends_the_same_documents() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut town = Town::start(directory.path()).await;
    let (mut a, b) = (town.agent("a").await, town.agent("b").await);
    let image = shop();
    town.push(&image).await;
    town.deploy(&image, &carts(10)).await.expect("it is accepted");
    town.deploy(&image, &front(4).replace("resources", "grants: { keyvalue: [] }\n      resources"))
        .await
        .expect_err("the package asks for keyvalue");
    let whole = |document: &hvm_types::HostDocument| {
        document.assignments.len() == 5
            && document.routing.groups.first().is_some_and(|group| group.owners.len() == 10)
    };
    let before_a = a.document_with("five partitions", whole).await;
    let before_b = b.document_with("five partitions", whole).await;
    a.obey().await;
    let before = town.status().await;
    town.handle.shutdown().await;

    let mut town = Town::start(directory.path()).await;
    let (deployments, hosts) = town.status().await;
    assert!(hosts.iter().all(|host| host.alive), "hosts count as alive until they could have reported");
    assert_eq!((deployments[0].generation, hosts.len()), (before.0[0].generation, 2));
    // The second never joins anew: its stream alone shows that nothing was taken from it.
    let a = town.agent("a").await;
    assert_eq!(a.document().await, before_a);
    let mut watching = town.hosts();
    let request = hvm_api::v1::WatchDocumentRequest { host: "b".to_owned() };
    let mut stream = watching.watch_document(request).await.expect("it is known").into_inner();
    let document = stream.message().await.expect("a message").expect("a document");
    assert_eq!(hvm_types::HostDocument::try_from(document), Ok(before_b));
    let answer = town.deploy(&image, &carts(10)).await.expect("it is accepted");
    assert!(!answer.changed);
    town.handle.shutdown().await;
}

#[tokio::test]
async fn two_schedulers_on_one_directory_are_refused() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let town = Town::start(directory.path()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let second = Scheduler::start(SchedulerConfig::new(directory.path()), listener).await;
    let text = second.err().expect("the directory is taken").to_string();
    assert!(text.contains(&directory.path().display().to_string()), "{text}");
    assert!(text.contains("another process uses it"), "{text}");
    town.handle.shutdown().await;
    Town::start(directory.path()).await.handle.shutdown().await;
}
