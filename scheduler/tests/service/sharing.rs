//! Hosts that share a state store, or come with another one than before.

use std::time::Duration;

use hvm_api::v1;
use hvm_types::{Epoch, HostDocument, HostSpec};

use super::fake::{FakeAgent, Town, carts, host_spec, shop, until};

fn with_store(id: &str, store: Option<&str>) -> HostSpec {
    HostSpec { store: store.map(|store| store.parse().expect("a valid name")), ..host_spec(id) }
}

fn epochs(document: &HostDocument) -> Vec<Epoch> {
    document.assignments.iter().map(|assignment| assignment.epoch).collect()
}

async fn join(town: &Town, spec: HostSpec, data_id: &str) -> Result<(), String> {
    let request = v1::JoinRequest { host: Some(spec.into()), data_id: data_id.to_owned() };
    town.hosts().join(request).await.map(drop).map_err(|status| status.message().to_owned())
}

/// The host owns this many partitions, and reports all the while.
async fn owns(agent: &mut FakeAgent, count: usize) -> HostDocument {
    until("it owns as many as it should", async || {
        agent.obey().await;
        let document = agent.document().await;
        (document.assignments.len() == count).then_some(document)
    })
    .await
}

#[tokio::test]
async fn what_a_lost_host_had_in_a_store_goes_to_another_one_with_that_store() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut town = Town::start_with(directory.path(), Duration::from_secs(2)).await;
    let mut a = town.agent_with(with_store("a", Some("s"))).await;
    let image = shop();
    town.push(&image).await;
    town.deploy(&image, &carts(4)).await.expect("it is accepted");
    assert_eq!(epochs(&owns(&mut a, 4).await), [Epoch(1); 4]);
    let mut b = town.agent_with(with_store("b", Some("s"))).await;
    a.die();
    assert_eq!(epochs(&owns(&mut b, 4).await), [Epoch(2); 4], "the next epoch");
    let a = town.agent_with(with_store("a", Some("s"))).await;
    assert!(a.document().await.assignments.is_empty(), "the lost one is told that it has nothing any more");
    assert_eq!(epochs(&owns(&mut b, 4).await), [Epoch(2); 4], "and nothing moves back");
    town.handle.shutdown().await;
}

#[tokio::test]
async fn a_name_may_come_with_another_data_directory_but_not_with_another_store_than_its_state_is_in() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut town = Town::start_with(directory.path(), Duration::from_secs(1)).await;
    let mut a = town.agent_with(with_store("a", Some("s"))).await;
    let image = shop();
    town.push(&image).await;
    town.deploy(&image, &carts(2)).await.expect("it is accepted");
    owns(&mut a, 2).await;
    a.die();
    for (store, data_id) in [(Some("t"), "data of a"), (None, "data of a"), (None, "another directory")] {
        until("the lease has ended", async || (!town.status().await.1[0].alive).then_some(())).await;
        let refusal = join(&town, with_store("a", store), data_id).await.expect_err("its state is elsewhere");
        assert!(refusal.contains("state of partitions in store s"), "{refusal}");
    }
    let new_machine = join(&town, with_store("a", Some("s")), "another directory").await;
    assert_eq!(new_machine, Ok(()), "the state is where it was");
    town.handle.shutdown().await;
}
