//! New generations.

use hvm_types::Generation;

use super::town::{Ask, Town, counts, name, partitions, replicas, waits};
use crate::planner::{HostRefusal, WaitReason};

fn at_generation(town: &Town, generation: Generation) -> usize {
    town.owners("d").values().filter(|(_, owned, _)| *owned == generation).count()
}

#[test]
fn at_most_max_parallel_change_at_a_time() {
    let mut town = Town::with_hosts(2);
    town.deploy("d", &partitions(7));
    town.settle();
    let before = town.owners("d");
    let new = town.deploy("d", &partitions(7));
    let mut changed = 0;
    for expected in [2, 4, 6, 7] {
        let plan = town.round();
        changed += counts(&plan).1;
        assert_eq!((changed, at_generation(&town, new)), (expected, expected));
        let limit = WaitReason::MaxParallel { limit: 2 };
        assert_eq!(waits(&plan).len(), 7 - expected);
        assert!(waits(&plan).iter().all(|(_, reason)| *reason == limit));
        town.obey_all();
    }
    for (index, (host, _, epoch)) in town.owners("d") {
        assert_eq!((host, epoch), (before[&index].0, before[&index].2), "an update is no change of owner");
    }
}

#[test]
fn an_update_goes_on_only_when_hosts_report_that_it_serves() {
    let mut town = Town::with_hosts(1);
    town.deploy("d", &partitions(6));
    town.settle();
    let new = town.deploy("d", &partitions(6));
    town.round();
    assert_eq!(at_generation(&town, new), 2);
    town.obey_some(0, |index| index == 0);
    town.round();
    assert_eq!(at_generation(&town, new), 3, "one of two serves, so one more may begin");
}

#[test]
fn an_update_stops_at_the_first_failure_and_a_later_generation_goes_on() {
    let mut town = Town::with_hosts(1);
    town.deploy("d", &partitions(6));
    town.settle();
    let broken = town.deploy("d", &partitions(6));
    town.round();
    town.obey_some(0, |index| index == 0);
    town.fail(0, 1, "its migration failed");
    for _ in 0..3 {
        let plan = town.round();
        assert_eq!(at_generation(&town, broken), 2, "none begins after one failed");
        let reason = "its migration failed".into();
        let failed = WaitReason::UpdateFailed { index: 1, host: name("h0"), reason };
        assert_eq!(waits(&plan).len(), 4);
        assert!(waits(&plan).iter().all(|(_, reason)| *reason == failed), "{:?}", waits(&plan));
    }
    let good = town.deploy("d", &partitions(6));
    town.settle();
    assert_eq!(at_generation(&town, good), 6);
}

#[test]
fn a_correction_reaches_what_a_broken_generation_stopped() {
    let mut town = Town::with_hosts(1);
    town.deploy("d", &partitions(6));
    town.settle();
    let broken = town.deploy("d", &partitions(6));
    town.round();
    let good = town.deploy("d", &partitions(6));
    town.round();
    assert_eq!((at_generation(&town, broken), at_generation(&town, good)), (0, 2));
    town.settle();
    assert_eq!(at_generation(&town, good), 6);
}

#[test]
fn a_deployment_that_never_served_is_corrected_at_once() {
    let mut town = Town::with_hosts(1);
    town.deploy("d", &partitions(6));
    town.round();
    let good = town.deploy("d", &partitions(6));
    town.round();
    assert_eq!(at_generation(&town, good), 6);
}

#[test]
fn a_silent_host_is_left_alone_until_it_reports() {
    let mut town = Town::with_hosts(1);
    town.deploy("d", &partitions(3));
    town.settle();
    let new = town.deploy("d", &partitions(3));
    town.hosts[0].observed = None;
    let plan = town.round();
    assert_eq!(waits(&plan)[0].1, WaitReason::HostSilent { host: name("h0") });
    assert_eq!(at_generation(&town, new), 0);
    town.obey(0);
    town.settle();
    assert_eq!(at_generation(&town, new), 3);
}

#[test]
fn a_lost_host_does_not_hold_up_the_others() {
    let mut town = Town::with_hosts(2);
    town.deploy("d", &partitions(8));
    town.settle();
    town.hosts[0].alive = false;
    let new = town.deploy("d", &partitions(8));
    town.settle();
    assert_eq!(at_generation(&town, new), town.on_host("d", 1).len());
    town.hosts[0].alive = true;
    town.settle();
    assert_eq!(at_generation(&town, new), 8);
}

#[test]
fn a_partition_that_needs_more_than_its_host_has_says_so_and_keeps_running() {
    let mut town = Town::with_hosts(2);
    town.deploy("d", &partitions(2));
    town.settle();
    let before = town.owners("d");
    town.deploy("d", &Ask { memory: 2_000, ..partitions(2) });
    let plan = town.round();
    let refused = |host: &str| WaitReason::UpdateRefused {
        host: name(host),
        refusal: HostRefusal::NoMemory { needs_mb: 2_000, free_mb: 1_000 },
    };
    let mut reasons = waits(&plan);
    reasons.sort_by_key(|(_, reason)| reason.to_string());
    assert_eq!(
        reasons.into_iter().map(|(_, reason)| reason).collect::<Vec<_>>(),
        [refused("h0"), refused("h1")]
    );
    assert_eq!(town.owners("d"), before);
}

#[test]
fn what_one_update_frees_another_may_use() {
    let mut town = Town::with_hosts(1);
    town.deploy("d", &Ask { memory: 400, ..partitions(1) });
    town.deploy("e", &Ask { memory: 400, ..partitions(1) });
    town.settle();
    town.deploy("d", &Ask { memory: 700, ..partitions(1) });
    town.deploy("e", &Ask { memory: 100, ..partitions(1) });
    let plan = town.round();
    assert_eq!(counts(&plan), (0, 2, 0, 0));
}

#[test]
fn a_replica_that_no_longer_fits_its_host_moves() {
    let mut town = Town::with_hosts(1);
    town.deploy("d", &replicas(1));
    town.settle();
    town.add_host(5_000, 5_000);
    town.deploy("d", &Ask { memory: 2_000, ..replicas(1) });
    let plan = town.round();
    assert_eq!(counts(&plan), (1, 0, 1, 0));
    assert_eq!(town.on_host("d", 1).len(), 1);
}

#[test]
fn a_new_constraint_moves_replicas_a_few_at_a_time() {
    let mut town = Town::with_hosts(2);
    town.deploy("d", &replicas(8));
    town.settle();
    town.deploy("d", &Ask { zones: vec!["b"], ..replicas(8) });
    let plan = town.round();
    let (placed, updated, removed, _) = counts(&plan);
    assert!(placed + updated <= 2 && removed == placed, "{plan:#?}");
    town.settle();
    assert_eq!(town.on_host("d", 1).len(), 8);
}

#[test]
fn fewer_copies_are_removed_from_the_end() {
    let mut town = Town::with_hosts(2);
    town.deploy("d", &replicas(8));
    town.settle();
    town.deploy("d", &replicas(3));
    town.settle();
    assert_eq!(town.owners("d").into_keys().collect::<Vec<_>>(), [0, 1, 2]);
}
