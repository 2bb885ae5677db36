//! Hosts that come, go, and are not who they say.

use std::time::Duration;

use hvm_api::{ErrorKind, Failure, v1};
use hvm_types::Epoch;

use super::fake::{FakeImage, Town, carts, front, host_spec, indexes, owned, shop, until};

#[tokio::test]
async fn a_lost_host_loses_what_has_no_state_and_keeps_the_rest() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut town = Town::start_with(directory.path(), Duration::from_secs(3)).await;
    let (mut a, mut b) = (town.agent("a").await, town.agent("b").await);
    let image = FakeImage::new("1.0.0", 1, &[]);
    town.push(&image).await;
    town.deploy(&image, &carts(4)).await.expect("it is accepted");
    town.deploy(&image, &front(4)).await.expect("it is accepted");
    let on_both = |document: &hvm_types::HostDocument| {
        let of = |name| document.assignments.iter().any(|a| a.replica.deployment.as_str() == name);
        of("shop") && of("front")
    };
    until("both deployments are on b", async || {
        a.obey().await;
        b.obey().await;
        on_both(&b.document().await).then_some(())
    })
    .await;
    // Only a reports from here on.
    b.die();
    let has_all_of_front = |document: &hvm_types::HostDocument| {
        document.assignments.iter().filter(|a| a.replica.deployment.as_str() == "front").count() == 4
    };
    let document = until("all four copies are on a", async || {
        a.obey().await;
        let document = a.document().await;
        has_all_of_front(&document).then_some(document)
    })
    .await;
    let moved = document.assignments.iter().filter(|assignment| assignment.epoch == Epoch(2)).count();
    assert!(moved > 0, "copies that were on b have new owners");
    let (deployments, hosts) = town.status().await;
    assert_eq!(hosts.iter().map(|host| host.alive).collect::<Vec<_>>(), [true, false]);
    let shop = deployments.iter().find(|status| status.deployment.as_str() == "shop").expect("it is there");
    let on_b: Vec<_> = shop.groups[0]
        .replicas
        .iter()
        .filter(|r| r.host.as_ref().is_some_and(|h| h.as_str() == "b"))
        .collect();
    assert!(!on_b.is_empty());
    for replica in &on_b {
        let waits = replica.waits.as_deref().unwrap_or_default();
        assert!(waits.contains("its state is on host b"), "{waits}");
        assert_eq!(replica.observed, None, "what a lost host said last is not shown as if it were so");
    }

    let b = town.agent("b").await;
    let back = b.document().await;
    let carts_on_b = back.assignments.iter().filter(|a| a.replica.deployment.as_str() == "shop");
    let carts_on_b: Vec<_> = carts_on_b.map(|a| (a.replica.index, a.epoch)).collect();
    assert_eq!(carts_on_b, on_b.iter().map(|r| (r.index, Epoch(1))).collect::<Vec<_>>());
    town.handle.shutdown().await;
}

#[tokio::test]
async fn a_host_that_nobody_knows_is_told_to_join() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let town = Town::start(directory.path()).await;
    let report = v1::ReportRequest { host: "stranger".to_owned(), ..Default::default() };
    assert!(!town.hosts().report(report).await.expect("an answer").into_inner().known);
    let watch = v1::WatchDocumentRequest { host: "stranger".to_owned() };
    let status = town.hosts().watch_document(watch).await.expect_err("it has not joined");
    assert_eq!(Failure::from(&status).kind, ErrorKind::NotFound);
    town.handle.shutdown().await;
}

#[tokio::test]
async fn a_second_agent_under_one_name_is_refused() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let town = Town::start(directory.path()).await;
    let _a = town.agent("a").await;
    let join =
        |data_id: &str| v1::JoinRequest { host: Some(host_spec("a").into()), data_id: data_id.to_owned() };
    let status = town.hosts().join(join("another directory")).await.expect_err("the name is taken");
    assert!(status.message().contains("host id a is in use"), "{}", status.message());
    town.hosts().join(join("data of a")).await.expect("the same agent comes again");
    town.handle.shutdown().await;
}

#[tokio::test]
async fn a_name_whose_state_lies_in_another_directory_is_refused_even_after_its_lease() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut town = Town::start_with(directory.path(), Duration::from_secs(1)).await;
    let mut a = town.agent("a").await;
    let image = shop();
    town.push(&image).await;
    town.deploy(&image, &carts(2)).await.expect("it is accepted");
    a.document_with("two partitions", |document| document.assignments.len() == 2).await;
    a.obey().await;
    a.die();
    until("the lease has ended", async || (!town.status().await.1[0].alive).then_some(())).await;
    let join =
        |data_id: &str| v1::JoinRequest { host: Some(host_spec("a").into()), data_id: data_id.to_owned() };
    let status = town.hosts().join(join("another directory")).await.expect_err("the state is not there");
    assert!(status.message().contains("holds the state of partitions"), "{}", status.message());
    town.hosts().join(join("data of a")).await.expect("the directory that has it");

    until("the lease has ended again", async || (!town.status().await.1[0].alive).then_some(())).await;
    town.stop("shop", true).await;
    until("the deployment is gone", async || town.status().await.0.is_empty().then_some(())).await;
    town.hosts().join(join("another directory")).await.expect("no state lies there any more");
    town.handle.shutdown().await;
}

#[tokio::test]
async fn a_host_that_can_not_be_right_is_refused_by_field() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let town = Town::start(directory.path()).await;
    let mut bad_id: v1::HostSpec = host_spec("a").into();
    bad_id.id = "Not A Name".to_owned();
    let mut bad_port: v1::HostSpec = host_spec("a").into();
    bad_port.ingress = "somewhere:0".to_owned();
    for (host, field) in [(Some(bad_id), "host.id"), (Some(bad_port), "host.ingress"), (None, "host")] {
        let join = v1::JoinRequest { host, ..Default::default() };
        let status = town.hosts().join(join).await.expect_err("it is wrong");
        assert_eq!(Failure::from(&status).kind, ErrorKind::Invalid);
        assert!(status.message().starts_with(&format!("field {field}: ")), "{}", status.message());
    }
    town.handle.shutdown().await;
}

#[tokio::test]
async fn a_host_that_joins_late_takes_what_waits() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut town = Town::start(directory.path()).await;
    let image = FakeImage::new("1.0.0", 1, &[]);
    town.push(&image).await;
    town.deploy(&image, &carts(3)).await.expect("it is accepted");
    let (deployments, _) = town.status().await;
    let waits = deployments[0].groups[0].replicas[0].waits.clone().unwrap_or_default();
    assert!(waits.contains("no host has joined"), "{waits}");
    let a = town.agent("a").await;
    let document = a.document_with("three partitions", |document| document.assignments.len() == 3).await;
    assert_eq!(indexes(&document).len(), owned(&document).len());
    town.handle.shutdown().await;
}
