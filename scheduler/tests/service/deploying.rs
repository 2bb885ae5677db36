//! From a deployment file to replicas that serve, to the next version, to nothing.

use hvm_api::{ErrorKind, v1};
use hvm_types::{Epoch, Generation};

use super::fake::{FakeImage, Town, carts, front, indexes, owned, shop, until};

#[tokio::test]
async fn a_deployment_reaches_both_hosts_and_becomes_ready() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut town = Town::start(directory.path()).await;
    let (mut a, mut b) = (town.agent("a").await, town.agent("b").await);
    let image = shop();
    town.push(&image).await;
    let answer = town.deploy(&image, &carts(16)).await.expect("it is accepted");
    assert_eq!(answer, v1::DeployResponse { generation: 1, changed: true });

    let has_eight = |document: &hvm_types::HostDocument| document.assignments.len() == 8;
    let on_a = a.document_with("eight partitions", has_eight).await;
    let on_b = b.document_with("eight partitions", has_eight).await;
    let all: Vec<u32> = indexes(&on_a).union(&indexes(&on_b)).copied().collect();
    assert_eq!(all, (0..16).collect::<Vec<_>>());
    let first = &on_a.assignments[0];
    assert!(first.stateful && first.image == image.manifest && first.epoch == Epoch(1));
    assert_eq!(first.task.env["CURRENCY"], "EUR");

    let whole = |document: &hvm_types::HostDocument| {
        document.routing.groups.first().is_some_and(|group| group.owners.len() == 16)
    };
    let routing = a.document_with("the routing table", whole).await.routing;
    assert_eq!(routing, b.document_with("the routing table", whole).await.routing);
    assert_eq!((routing.hosts.len(), routing.routes.len(), routing.groups[0].copies), (2, 1, 16));
    assert!(routing.groups[0].partitioned);

    let (deployments, hosts) = town.status().await;
    let group = &deployments[0].groups[0];
    assert!(group.replicas.iter().all(|replica| replica.observed.is_none() && replica.host.is_some()));
    assert!(hosts.iter().all(|host| host.alive && host.assigned == 8));
    a.obey().await;
    b.obey().await;
    let (deployments, _) = town.status().await;
    let serves = |replica: &hvm_types::ReplicaStatus| {
        replica.observed.as_ref().is_some_and(|observed| observed.state.serves())
    };
    assert!(deployments[0].groups[0].replicas.iter().all(serves));
    assert_eq!((deployments[0].app.as_str(), deployments[0].generation), ("shop 1.0.0", Generation(1)));
    town.handle.shutdown().await;
}

#[tokio::test]
async fn a_new_version_comes_a_few_partitions_at_a_time_and_both_generations_are_seen() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut town = Town::start(directory.path()).await;
    let mut a = town.agent("a").await;
    let (old, new) = (shop(), FakeImage::new("1.1.0", 1, &[]));
    town.push(&old).await;
    town.push(&new).await;
    town.deploy(&old, &carts(5)).await.expect("it is accepted");
    a.document_with("five partitions", |document| document.assignments.len() == 5).await;
    a.obey().await;
    let answer = town.deploy(&new, &carts(5)).await.expect("it is accepted");
    assert_eq!(answer, v1::DeployResponse { generation: 2, changed: true });

    for (updated, still_old) in [(2, 5), (4, 3), (5, 1)] {
        let at_two = |document: &hvm_types::HostDocument| {
            owned(document).values().filter(|(generation, _)| *generation == Generation(2)).count()
        };
        let document = a.document_with("the next ones", |document| at_two(document) == updated).await;
        assert!(owned(&document).values().all(|(_, epoch)| *epoch == Epoch(1)), "the owner is the same");
        for assignment in &document.assignments {
            let image = if assignment.generation == Generation(2) { &new } else { &old };
            assert_eq!(assignment.image, image.manifest);
        }
        let (deployments, _) = town.status().await;
        let replicas = &deployments[0].groups[0].replicas;
        assert!(replicas.iter().all(|replica| replica.wanted == Generation(2)));
        let waits = replicas.iter().filter(|replica| replica.waits.is_some()).count();
        assert_eq!(waits, 5 - updated, "{replicas:#?}");
        let observed = replicas.iter().filter_map(|replica| replica.observed.as_ref());
        assert_eq!(observed.filter(|observed| observed.generation == Generation(1)).count(), still_old);
        a.obey().await;
    }
    town.handle.shutdown().await;
}

#[tokio::test]
async fn the_same_again_changes_nothing() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut town = Town::start(directory.path()).await;
    let a = town.agent("a").await;
    let image = shop();
    town.push(&image).await;
    town.deploy(&image, &carts(4)).await.expect("it is accepted");
    let document = a.document_with("four partitions", |document| document.assignments.len() == 4).await;
    let again = format!("# the same, said otherwise\n{}", carts(4));
    let answer = town.deploy(&image, &again).await.expect("it is accepted");
    assert_eq!(answer, v1::DeployResponse { generation: 1, changed: false });
    let by_digest = carts(4).replace("shop.aimg", &format!("shop@{}", image.manifest));
    let answer = town.deploy(&image, &by_digest).await.expect("it is accepted");
    assert!(!answer.changed, "where an image comes from changes nothing");
    assert_eq!(a.document().await, document);
    town.handle.shutdown().await;
}

#[tokio::test]
async fn a_plan_says_what_deploy_would_do_and_does_nothing() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut town = Town::start(directory.path()).await;
    let _a = town.agent("a").await;
    let image = shop();
    town.push(&image).await;
    let text = carts(4).replace("keyvalue: [default]", "keyvalue: [default], logging: true");
    let plan = town.control.plan(Town::request(&image, &text)).await.expect("an answer").into_inner();
    assert_eq!(plan.generation, 1);
    let [line] = &plan.lines[..] else { panic!("one line: {plan:?}") };
    assert_eq!(
        (line.kind.as_str(), line.group.as_str(), line.replicas, line.host.as_str()),
        ("place", "carts", 4, "a")
    );
    let capabilities: Vec<_> = plan
        .capabilities
        .iter()
        .map(|line| (line.capability.as_str(), line.requested, line.granted))
        .collect();
    assert_eq!(capabilities, [("keyvalue", true, true), ("logging", false, true)]);
    let (deployments, _) = town.status().await;
    assert_eq!(deployments, []);

    town.deploy(&image, &text).await.expect("it is accepted");
    let settled = until("the partitions are placed", async || {
        let plan = town.control.plan(Town::request(&image, &text)).await.expect("an answer").into_inner();
        (plan.lines.len() == 1 && plan.lines[0].kind == "keep").then_some(plan)
    });
    assert_eq!(settled.await.lines[0].replicas, 4);
    town.handle.shutdown().await;
}

#[tokio::test]
async fn a_stopped_deployment_is_gone_when_the_host_confirms_and_comes_back_to_its_state() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut town = Town::start(directory.path()).await;
    let (mut a, mut b) = (town.agent("a").await, town.agent("b").await);
    let image = shop();
    town.push(&image).await;
    town.deploy(&image, &carts(6)).await.expect("it is accepted");
    let has_three = |document: &hvm_types::HostDocument| document.assignments.len() == 3;
    let before = indexes(&a.document_with("three partitions", has_three).await);
    b.document_with("three partitions", has_three).await;
    a.obey().await;
    b.obey().await;

    town.stop("shop", false).await;
    let empty = |document: &hvm_types::HostDocument| {
        document.assignments.is_empty() && document.routing.routes.is_empty()
    };
    a.document_with("nothing", empty).await;
    b.document_with("nothing", empty).await;
    let (deployments, _) = town.status().await;
    assert!(deployments[0].stopping);
    let replicas = &deployments[0].groups[0].replicas;
    assert!(replicas.iter().all(|replica| replica.observed.is_some()), "what is still there is shown");
    a.obey().await;
    let (deployments, _) = town.status().await;
    let waits = deployments[0].groups[0].replicas.iter().find_map(|replica| replica.waits.clone());
    assert!(waits.is_some_and(|line| line.contains("host b ")), "{deployments:#?}");
    b.obey().await;
    until("it is gone", async || town.status().await.0.is_empty().then_some(())).await;
    let again = town.control.stop(v1::StopRequest { deployment: "shop".to_owned(), purge: false }).await;
    let failure = hvm_api::Failure::from(&again.expect_err("it is gone"));
    assert_eq!(failure.kind, ErrorKind::NotFound);

    let other_count = town.deploy(&image, &carts(7)).await.expect_err("the state has six parts");
    assert!(other_count.to_string().contains("app.yaml:7:17: jobs[0].groups[0].partitions"), "{other_count}");
    assert!(other_count.to_string().contains("state of 6 partitions"), "{other_count}");
    let answer = town.deploy(&image, &carts(6)).await.expect("it is accepted");
    assert_eq!(answer.generation, 2, "a generation is not used twice");
    let after = a.document_with("three partitions", has_three).await;
    assert_eq!(indexes(&after), before, "each partition is where its state is");
    assert!(owned(&after).values().all(|(_, epoch)| *epoch == Epoch(2)), "an epoch is not used twice");
    town.handle.shutdown().await;
}

#[tokio::test]
async fn a_purge_travels_to_the_host_and_ends_when_it_is_done() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut town = Town::start(directory.path()).await;
    let mut a = town.agent("a").await;
    let image = shop();
    town.push(&image).await;
    town.deploy(&image, &carts(2)).await.expect("it is accepted");
    a.document_with("two partitions", |document| document.assignments.len() == 2).await;
    a.obey().await;
    town.stop("shop", true).await;
    let document = a.document_with("the purge", |document| !document.purge.is_empty()).await;
    assert_eq!(document.purge.len(), 2);
    assert!(document.assignments.is_empty());
    // It is gone from the report, but the host has not said that it did what the document asks.
    assert!(a.report(vec![], document.version - 1).await);
    let refused = town.deploy(&image, &carts(2)).await.expect_err("it is being purged");
    assert_eq!(refused.kind, ErrorKind::Conflict);
    assert!(!town.status().await.0.is_empty());
    a.obey().await;
    until("the purge is done", async || {
        a.obey().await;
        town.status().await.0.is_empty().then_some(())
    })
    .await;
    a.document_with("nothing to purge", |document| document.purge.is_empty()).await;
    town.deploy(&image, &carts(9)).await.expect("nothing is left of the old count");
    town.handle.shutdown().await;
}

#[tokio::test]
async fn two_deployments_share_the_hosts() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut town = Town::start(directory.path()).await;
    let a = town.agent("a").await;
    let (stateful, plain) = (shop(), FakeImage::new("2.0.0", 1, &[]));
    town.push(&stateful).await;
    town.push(&plain).await;
    town.deploy(&stateful, &carts(3)).await.expect("it is accepted");
    town.deploy(&plain, &front(2)).await.expect("it is accepted");
    let document = a.document_with("both", |document| document.assignments.len() == 5).await;
    let prefixes: Vec<_> =
        document.routing.routes.iter().map(|target| target.route.r#match.prefix.as_str()).collect();
    assert_eq!(prefixes, ["/carts", "/"], "the longer prefix is tried first");
    let images = town.control.list_images(v1::ListImagesRequest {}).await.expect("an answer").into_inner();
    assert_eq!(images.images.len(), 2);
    town.handle.shutdown().await;
}
