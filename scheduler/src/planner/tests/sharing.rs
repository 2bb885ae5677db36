//! Hosts that share a state store: who takes what over, and who deletes it.

use hvm_types::Epoch;

use super::town::{Ask, Town, key, partitions, waits};
use crate::planner::{HostRefusal, WaitReason};

/// `h0` and `h1` share a store, `h2` has another one, `h3` its own disk.
fn town() -> Town {
    let mut town = Town::default();
    for store in [Some("s"), Some("s"), Some("t"), None] {
        town.add_host_with(1_000, 1_000, store);
    }
    town
}

/// A deployment all of whose partitions are on `h0`.
fn on_the_first(count: u32) -> Town {
    let mut town = town();
    for number in 1..4 {
        town.hosts[number].alive = false;
    }
    town.deploy("d", &partitions(count));
    town.settle();
    for number in 1..4 {
        town.hosts[number].alive = true;
    }
    town.settle();
    assert_eq!(town.on_host("d", 0).len(), usize::try_from(count).expect("few"));
    town
}

#[test]
fn a_host_with_the_same_store_takes_over_what_a_lost_one_had() {
    let mut town = on_the_first(5);
    town.hosts[0].alive = false;
    town.round();
    assert_eq!(town.on_host("d", 1).len(), 5, "and not those with other state");
    assert!(town.owners("d").values().all(|(_, _, epoch)| *epoch == Epoch(2)));
    assert!(town.hosts[0].document.is_empty(), "the lost one is told when it is back");
    // It is back, and nothing moves again.
    town.hosts[0].alive = true;
    town.hosts[0].observed = None;
    assert!(town.plan().is_settled());
    // What had been taken over can be taken over again, with a new number.
    town.obey_all();
    town.hosts[1].alive = false;
    town.round();
    assert_eq!(town.on_host("d", 0).len(), 5);
    assert!(town.owners("d").values().all(|(_, _, epoch)| *epoch == Epoch(3)));
}

#[test]
fn a_partition_waits_while_no_host_with_its_store_takes_it() {
    let mut town = on_the_first(1);
    for lost in [0, 1] {
        town.hosts[lost].alive = false;
    }
    let before = town.owners("d");
    let plan = town.round();
    let [(0, WaitReason::StateIn { store, host, refusals })] = &waits(&plan)[..] else { panic!("{plan:#?}") };
    assert_eq!((store.as_str(), host.as_str()), ("s", "h0"));
    let refusals: Vec<_> = refusals.iter().map(|class| (class.why.clone(), class.hosts)).collect();
    assert_eq!(refusals, [(HostRefusal::Lost, 2), (HostRefusal::OtherStore, 2)]);
    assert_eq!(town.owners("d"), before, "it stays its owner's");
    // Whoever comes back first has it.
    town.hosts[1].alive = true;
    town.round();
    assert_eq!(town.on_host("d", 1).len(), 1);
}

#[test]
fn a_host_with_the_store_and_no_room_says_so() {
    let mut town = on_the_first(1);
    town.deploy("fill", &Ask { memory: 995, ..partitions(3) });
    town.settle();
    assert_eq!(town.on_host("fill", 1).len(), 1);
    town.hosts[0].alive = false;
    let plan = town.round();
    let text = waits(&plan)[0].1.to_string();
    assert!(text.contains("its state is in store s, where host h0 had it last"), "{text}");
    assert!(text.contains("h1: too little memory"), "{text}");
}

#[test]
fn a_deployment_that_comes_again_goes_to_any_host_that_reaches_its_state() {
    let mut town = on_the_first(3);
    town.stop("d", false);
    town.settle();
    town.hosts[0].alive = false;
    town.deploy("d", &partitions(3));
    town.round();
    assert_eq!(town.on_host("d", 1).len(), 3);
}

#[test]
fn a_partition_that_its_host_may_no_longer_run_is_handed_over_to_one_that_reaches_its_state() {
    let mut town = on_the_first(3);
    let zone_b = Ask { zones: vec!["b"], max_parallel: 1, ..partitions(3) };
    town.deploy("d", &zone_b);
    let mut moved = 0;
    while moved < 3 {
        town.round();
        assert_eq!(town.on_host("d", 1).len(), moved + 1, "as many as may change at a time");
        let waits = |town: &Town| town.hosts[1].document.waits.get(&key("d")).map_or(0, |waits| waits.len());
        assert_eq!(waits(&town), 1, "the new owner is not told before the old one has let go");
        town.obey(1);
        town.round();
        assert_eq!(waits(&town), 1);
        town.obey(0);
        town.round();
        assert_eq!(waits(&town), 0);
        town.obey(1);
        moved += 1;
    }
    town.settle();
    assert_eq!(town.on_host("d", 1).len(), 3);
    // A host that is lost lets go at once.
    town.deploy("d", &Ask { zones: vec!["a"], ..partitions(3) });
    town.round();
    assert!(!town.hosts[0].document.waits.is_empty());
    town.hosts[1].alive = false;
    town.round();
    assert!(town.hosts[0].document.waits.is_empty());
}

#[test]
fn one_living_host_deletes_what_is_in_a_store() {
    let mut town = on_the_first(3);
    town.hosts[0].alive = false;
    town.stop("d", true);
    town.round();
    let told =
        |town: &Town, host: usize| town.hosts[host].document.purge.get(&key("d")).map_or(0, |p| p.len());
    assert_eq!([0, 1, 2, 3].map(|host| told(&town, host)), [0, 3, 0, 0]);
    // That the last owner comes back meanwhile changes nothing.
    town.hosts[0].alive = true;
    town.round();
    assert_eq!([0, 1, 2, 3].map(|host| told(&town, host)), [0, 3, 0, 0]);
    town.settle();
    assert!(town.deployments.is_empty());
    assert!(town.hosts.iter().all(|host| host.document.purge.is_empty()));
}

#[test]
fn nothing_new_is_put_where_old_state_is_still_to_be_deleted() {
    let mut town = on_the_first(2);
    for lost in [0, 1] {
        town.hosts[lost].alive = false;
    }
    town.stop("d", true);
    town.settle();
    assert!(town.deployments.is_empty(), "lost hosts do not hold up the end");
    // The lost one has the order. Another one with its store inherits it when it is back, and takes nothing before.
    town.hosts[1].alive = true;
    town.hosts[1].observed = None;
    town.deploy("d", &partitions(2));
    town.round();
    assert_eq!(town.hosts[1].document.purge.get(&key("d")).map(std::collections::BTreeSet::len), Some(2));
    assert!(town.hosts[0].document.purge.is_empty());
    assert!(town.on_host("d", 1).is_empty(), "it would find the old state");
    town.settle();
    assert!(town.hosts[1].document.purge.is_empty());
}
