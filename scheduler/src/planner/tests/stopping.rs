//! The end of deployments, and what is left of them.

use hvm_types::{DeploymentName, Epoch, Generation};

use super::town::{Town, key, name, partitions, replicas, waits};
use crate::planner::{Finish, HostRefusal, WaitReason};

fn is_gone(town: &Town, deployment: &str) -> bool {
    !town.deployments.contains_key(&name::<DeploymentName>(deployment))
}

#[test]
fn a_stop_is_finished_when_every_living_host_confirms() {
    let mut town = Town::with_hosts(3);
    town.deploy("d", &partitions(6));
    town.settle();
    town.hosts[2].alive = false;
    town.stop("d", false);
    let plan = town.round();
    assert!(town.owners("d").is_empty());
    let waits_for = |hosts: &[&str]| Finish::WaitsFor {
        deployment: name("d"),
        hosts: hosts.iter().map(|host| name(host)).collect(),
    };
    assert_eq!(plan.stops, [waits_for(&["h0", "h1"])]);
    town.obey(0);
    assert_eq!(town.round().stops, [waits_for(&["h1"])]);
    // A host that was just started says nothing of what it has not looked at yet.
    town.hosts[1].observed = None;
    assert_eq!(town.round().stops, [waits_for(&["h1"])]);
    town.obey(1);
    assert_eq!(town.round().stops, [Finish::Done { deployment: name("d") }]);
    assert!(is_gone(&town, "d"));
}

#[test]
fn a_report_from_before_the_removal_confirms_nothing() {
    let mut town = Town::with_hosts(1);
    town.deploy("d", &replicas(1));
    town.round();
    town.stop("d", false);
    town.round();
    town.hosts[0].observed = Some(crate::planner::Observation::default());
    assert!(matches!(&town.round().stops[..], [Finish::WaitsFor { .. }]));
    town.obey(0);
    town.round();
    assert!(is_gone(&town, "d"));
}

#[test]
fn a_deployment_that_comes_again_finds_its_state_and_uses_new_numbers() {
    let mut town = Town::with_hosts(3);
    town.deploy("d", &partitions(9));
    town.settle();
    let before = town.owners("d");
    town.stop("d", false);
    town.settle();
    assert!(is_gone(&town, "d"));
    town.add_host(9_000, 9_000);
    assert_eq!(town.deploy("d", &partitions(9)), Generation(2));
    town.hosts[1].alive = false;
    let plan = town.round();
    for (index, (host, _, epoch)) in town.owners("d") {
        assert_eq!((host, epoch), (before[&index].0, Epoch(2)));
    }
    let expected = WaitReason::StateOn { host: name("h1"), refusal: HostRefusal::Lost };
    assert!(!waits(&plan).is_empty() && waits(&plan).iter().all(|(_, reason)| *reason == expected));
}

#[test]
fn a_purge_reaches_every_host_and_is_forgotten_when_done() {
    let mut town = Town::with_hosts(2);
    town.deploy("d", &partitions(4));
    town.settle();
    let on = [town.on_host("d", 0), town.on_host("d", 1)];
    town.hosts[1].alive = false;
    town.stop("d", true);
    town.round();
    for (host, on) in town.hosts.iter().zip(&on) {
        assert_eq!(host.document.purge.get(&key("d")), Some(on), "{}", host.id());
        assert!(host.document.is_empty());
    }
    town.settle();
    assert!(is_gone(&town, "d"), "a lost host does not hold up the end");
    assert!(town.hosts[0].document.purge.is_empty());
    assert_eq!(town.hosts[1].document.purge.get(&key("d")), Some(&on[1]), "the lost host is told later");
    assert!(town.ownership[&key("d")].homes.is_empty());

    // While the lost host still has the old state, it gets none of the new.
    town.deploy("d", &partitions(4));
    town.hosts[1].alive = true;
    town.hosts[1].observed = None;
    town.round();
    assert!(town.on_host("d", 1).is_empty());
    assert_eq!(town.on_host("d", 0).len(), 4);
    assert!(town.owners("d").values().all(|(_, _, epoch)| *epoch == Epoch(2)));
    town.settle();
    assert!(town.hosts[1].document.purge.is_empty());
    assert_eq!(town.on_host("d", 0).len(), 4);
}

#[test]
fn what_no_deployment_wants_is_removed() {
    let mut town = Town::with_hosts(1);
    town.deploy("d", &replicas(3));
    town.settle();
    town.deployments.clear();
    town.round();
    assert!(town.hosts[0].document.is_empty());
}
