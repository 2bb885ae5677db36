//! Where replicas go, and where they stay.

use hvm_types::Epoch;

use super::town::{Town, counts, name, partitions, replicas, waits};
use crate::planner::{HostRefusal, StepAction, WaitReason};

#[test]
fn partitions_are_spread_over_all_hosts() {
    let mut town = Town::with_hosts(2);
    town.deploy("d", &partitions(16));
    let plan = town.round();
    assert_eq!(counts(&plan), (16, 0, 0, 0));
    assert_eq!((town.on_host("d", 0).len(), town.on_host("d", 1).len()), (8, 8));
    assert!(town.owners("d").values().all(|(_, _, epoch)| *epoch == Epoch(1)));
}

#[test]
fn a_larger_host_gets_more() {
    let mut town = Town::with_hosts(1);
    town.add_host(3_000, 3_000);
    town.deploy("d", &partitions(40));
    town.round();
    assert_eq!((town.on_host("d", 0).len(), town.on_host("d", 1).len()), (10, 30));
}

#[test]
fn without_cpu_nothing_of_the_processors_is_set_aside_and_memory_decides() {
    let mut town = Town::default();
    town.add_host(1, 1_000);
    town.add_host(1, 1_000);
    town.deploy("any", &super::town::Ask { cpu: 0, ..partitions(200) });
    assert_eq!(counts(&town.round()), (200, 0, 0, 0));
    assert_eq!((town.on_host("any", 0).len(), town.on_host("any", 1).len()), (100, 100));
    town.deploy("one", &super::town::Ask { cpu: 1, memory: 0, ..partitions(3) });
    assert_eq!(counts(&town.round()).3, 1, "each host has 1 MHz to set aside");
}

#[test]
fn without_hosts_everything_waits_and_says_so() {
    let mut town = Town::default();
    town.deploy("d", &partitions(3));
    let plan = town.round();
    assert_eq!(waits(&plan), [0, 1, 2].map(|index| (index, WaitReason::NoHosts)));
}

#[test]
fn a_shortage_names_each_class_of_hosts() {
    let mut town = Town::with_hosts(4);
    town.hosts[3].alive = false;
    town.deploy("d", &super::town::Ask { zones: vec!["a"], memory: 900, ..partitions(3) });
    let plan = town.round();
    assert_eq!(counts(&plan), (2, 0, 0, 1), "two hosts in zone a have room for one each");
    let [(2, WaitReason::NoHostFits { refusals })] = &waits(&plan)[..] else {
        panic!("partition 2 waits for room: {plan:#?}");
    };
    let classes: Vec<_> = refusals.iter().map(|class| (class.hosts, class.example.to_string())).collect();
    assert_eq!(classes, [(2, "h0".to_owned()), (1, "h1".to_owned()), (1, "h3".to_owned())]);
    assert_eq!(refusals[0].why, HostRefusal::NoMemory { needs_mb: 900, free_mb: 100 });
    assert!(matches!(refusals[1].why, HostRefusal::Excluded { .. }));
    assert_eq!(refusals[2].why, HostRefusal::Lost);
    let text = waits(&plan)[0].1.to_string();
    assert!(text.contains("2 hosts, such as h0: too little memory: 900 MB needed, 100 MB free"), "{text}");
    assert!(text.contains("h1: excluded by the constraint zone in [a]"), "{text}");
}

#[test]
fn room_that_only_one_of_many_hosts_has_is_found() {
    let mut town = Town::with_hosts(60);
    town.add_host(10_000, 10_000);
    town.deploy("d", &super::town::Ask { memory: 1_100, ..partitions(9) });
    let plan = town.round();
    assert_eq!(counts(&plan), (9, 0, 0, 0));
    assert_eq!(town.on_host("d", 60).len(), 9);
}

#[test]
fn a_new_host_takes_nothing_from_the_others() {
    let mut town = Town::with_hosts(2);
    town.deploy("d", &partitions(16));
    town.settle();
    let before = town.owners("d");
    town.add_host(1_000, 1_000);
    let plan = town.round();
    assert!(plan.steps.is_empty());
    assert_eq!(plan.kept.iter().map(|kept| kept.replicas).sum::<u32>(), 16);
    assert_eq!(town.owners("d"), before);
}

#[test]
fn replicas_of_a_lost_host_move_and_no_others() {
    let mut town = Town::with_hosts(3);
    town.deploy("d", &replicas(9));
    town.settle();
    let before = town.owners("d");
    let displaced = town.on_host("d", 1);
    town.hosts[1].alive = false;
    let plan = town.round();
    assert_eq!(counts(&plan), (displaced.len(), 0, displaced.len(), 0));
    for (index, (host, generation, epoch)) in town.owners("d") {
        if displaced.contains(&index) {
            assert_ne!(host, 1);
            assert_eq!(epoch, Epoch(2));
        } else {
            assert_eq!((host, generation, epoch), before[&index]);
        }
    }
    // The lost host comes back: nothing of what moved goes back, and it is told to drop what it had.
    town.hosts[1].alive = true;
    let after = town.owners("d");
    town.settle();
    assert_eq!(town.owners("d"), after);
    assert!(town.on_host("d", 1).is_empty());
}

#[test]
fn replicas_of_a_lost_host_stay_where_no_other_has_room() {
    let mut town = Town::with_hosts(2);
    town.deploy("d", &super::town::Ask { memory: 600, ..replicas(2) });
    town.settle();
    let before = town.owners("d");
    town.hosts[0].alive = false;
    let plan = town.round();
    assert!(matches!(&waits(&plan)[..], [(_, WaitReason::HostLost { .. })]), "{plan:#?}");
    assert_eq!(town.owners("d"), before);
}

#[test]
fn a_partition_waits_for_the_host_of_its_state() {
    let mut town = Town::with_hosts(3);
    town.deploy("d", &partitions(6));
    town.settle();
    let before = town.owners("d");
    let lost = town.on_host("d", 0);
    town.hosts[0].alive = false;
    let plan = town.round();
    let expected = WaitReason::StateOn { host: name("h0"), refusal: HostRefusal::Lost };
    assert_eq!(waits(&plan), lost.iter().map(|index| (*index, expected.clone())).collect::<Vec<_>>());
    assert_eq!(town.owners("d"), before, "epochs and hosts stay");
    town.hosts[0].alive = true;
    town.settle();
    assert_eq!(town.owners("d"), before);
}

#[test]
fn of_two_owners_the_one_with_the_higher_epoch_stays() {
    let mut town = Town::with_hosts(2);
    town.deploy("d", &replicas(1));
    town.settle();
    let (owner, generation, _) = town.owners("d")[&0];
    let ownership = crate::documents::Ownership { generation, epoch: Epoch(5) };
    town.hosts[1 - owner].document.assign(&super::town::key("d"), 0, ownership);
    town.round();
    assert_eq!(town.owners("d")[&0], (1 - owner, generation, Epoch(5)));
    // An epoch that was seen anywhere is never given again.
    town.hosts[1 - owner].alive = false;
    let plan = town.round();
    let epochs = plan.steps.iter().filter_map(|step| match &step.action {
        StepAction::Place { epoch, .. } => Some(*epoch),
        _ => None,
    });
    assert_eq!(epochs.collect::<Vec<_>>(), [Epoch(6)]);
}

#[test]
fn an_owner_whose_state_knows_a_higher_epoch_is_given_a_higher_one_still() {
    let mut town = Town::with_hosts(1);
    town.deploy("d", &partitions(3));
    town.settle();
    let say = |town: &mut Town, index: u32, epoch, by| {
        let observed = town.hosts[0].observed.as_mut().expect("it has reported");
        let replicas = observed.replicas.get_mut(&super::town::key("d")).expect("the group runs");
        let report = replicas.get_mut(&index).expect("the partition runs");
        (report.epoch, report.state) = (epoch, hvm_types::ReplicaState::Fenced { epoch: by });
    };
    // As after the coordination store was lost and began again at 1.
    say(&mut town, 1, Epoch(1), Epoch(7));
    let plan = town.round();
    assert_eq!(counts(&plan), (1, 0, 0, 0));
    let epochs = |town: &Town| town.owners("d").values().map(|(.., epoch)| epoch.0).collect::<Vec<_>>();
    assert_eq!(epochs(&town), [1, 8, 1], "only the one that is refused begins anew");
    town.settle();
    // Word of an ownership that has ended since changes nothing.
    say(&mut town, 1, Epoch(1), Epoch(9));
    assert!(town.plan().is_settled());
    assert_eq!(epochs(&town), [1, 8, 1]);
}

#[test]
fn the_order_of_hosts_does_not_matter() {
    let mut town = Town::with_hosts(20);
    town.deploy("d", &partitions(50));
    town.deploy("e", &replicas(30));
    let plan = town.plan();
    let mut turned = town.clone();
    turned.hosts.reverse();
    assert_eq!(turned.plan(), plan);
    turned.hosts.rotate_left(7);
    assert_eq!(turned.plan(), plan);
}

#[test]
fn ten_thousand_partitions_on_a_hundred_hosts_are_level() {
    let mut town = Town::default();
    for _ in 0..100 {
        town.add_host(20_000, 20_000);
    }
    town.deploy("d", &partitions(10_000));
    town.round();
    let most = (0..100).map(|host| town.hosts[host].document.len()).max().expect("hosts");
    assert!(most <= 105, "max/mean is {most}/100");
}
