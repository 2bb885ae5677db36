//! Random lives of a town. Whatever happens, in whatever order: after each step a plan is made and applied,
//! and what must always hold is checked.

use std::collections::BTreeMap;

use hvm_types::{Epoch, HostSpec};
use proptest::prelude::*;

use super::town::{Ask, Town, TownHost, key, partitions, replicas};
use crate::documents::Home;
use crate::planner::{Finish, Plan, StepAction};

#[derive(Debug, Clone)]
enum Event {
    AddHost { cpu: u32, memory: u64, store: Option<&'static str> },
    Lose { host: usize },
    Return { host: usize },
    Deploy { deployment: usize, ask: Ask },
    Stop { deployment: usize, purge: bool },
    Obey { host: usize, mask: u32 },
    Restart,
}

const NAMES: [&str; 4] = ["aa", "bb", "cc", "dd"];
const PARTITIONS: u32 = 7;

fn is_partitioned(deployment: usize) -> bool {
    deployment.is_multiple_of(2)
}

fn ask() -> impl Strategy<Value = Ask> {
    let zones = prop_oneof![3 => Just(vec![]), 1 => Just(vec!["a"]), 1 => Just(vec!["a", "b"])];
    (1..10_u32, 1..200_u32, 1..200_u32, 1..4_u32, zones).prop_map(
        |(copies, cpu, memory, max_parallel, zones)| Ask {
            cpu,
            memory,
            max_parallel,
            zones,
            ..replicas(copies)
        },
    )
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        1 => (100..1_500_u32, 100..1_500_u64, prop::option::of(prop_oneof![3 => Just("s"), 1 => Just("t")]))
            .prop_map(|(cpu, memory, store)| Event::AddHost { cpu, memory, store }),
        2 => (0..6_usize).prop_map(|host| Event::Lose { host }),
        2 => (0..6_usize).prop_map(|host| Event::Return { host }),
        4 => (0..NAMES.len(), ask()).prop_map(|(deployment, ask)| Event::Deploy { deployment, ask }),
        1 => (0..NAMES.len(), any::<bool>()).prop_map(|(deployment, purge)| Event::Stop { deployment, purge }),
        8 => (0..6_usize, any::<u32>()).prop_map(|(host, mask)| Event::Obey { host, mask }),
        1 => Just(Event::Restart),
    ]
}

fn happen(town: &mut Town, event: &Event) {
    let hosts = town.hosts.len().max(1);
    match event {
        Event::AddHost { cpu, memory, store } if town.hosts.len() < 6 => {
            town.add_host_with(*cpu, *memory, *store);
        }
        Event::Lose { host } => {
            if let Some(host) = town.hosts.get_mut(host % hosts) {
                host.alive = false;
            }
        }
        Event::Return { host } => {
            if let Some(host) = town.hosts.get_mut(host % hosts) {
                host.alive = true;
                host.observed = None;
            }
        }
        Event::Deploy { deployment, ask } => {
            let stop = town.deployments.values().find_map(|document| {
                (document.current.spec.deployment.as_str() == NAMES[*deployment]).then_some(document.stop)?
            });
            if stop.is_some_and(|stop| stop.purge) {
                return;
            }
            let ask = ask.clone();
            let ask = match is_partitioned(*deployment) {
                true => Ask { replicas: None, partitions: Some(PARTITIONS), ..ask },
                false => ask,
            };
            town.deploy(NAMES[*deployment], &ask);
        }
        Event::Stop { deployment, purge } => {
            if town.deployments.keys().any(|name| name.as_str() == NAMES[*deployment]) {
                town.stop(NAMES[*deployment], *purge);
            }
        }
        Event::Obey { host, mask } => {
            let number = host % hosts;
            if town.hosts.get(number).is_some_and(|host| host.alive) {
                town.obey_some(number, |index| mask & (1 << (index % 32)) != 0);
            }
        }
        Event::Restart => town.hosts.iter_mut().for_each(|host| host.observed = None),
        Event::AddHost { .. } => {}
    }
}

type Seen = BTreeMap<(&'static str, u32), (usize, Epoch)>;

/// What must hold between two states of the town, and in the second.
fn check(before: &Town, after: &Town, plan: &Plan, seen: &mut Seen) {
    for (deployment, name) in NAMES.into_iter().enumerate() {
        let old = before.owners(name);
        let gone = plan
            .stops
            .iter()
            .any(|stop| matches!(stop, Finish::Done { deployment } if deployment.as_str() == name));
        for (index, (host, _, epoch)) in after.owners(name) {
            match old.get(&index) {
                Some((old_host, _, old_epoch)) if *old_host == host => {
                    assert_eq!(*old_epoch, epoch, "{name}/{index} keeps its owner and so its epoch");
                }
                owner => {
                    let known = seen.get(&(name, index)).map_or(Epoch(0), |(_, epoch)| *epoch);
                    assert!(epoch > known, "{name}/{index}: epoch {epoch} after {known}");
                    assert!(after.hosts[host].alive, "{name}/{index} went to a lost host");
                    let takes_over = |old: usize| {
                        let store = |host: usize| after.hosts[host].spec.store.as_ref();
                        let lets_go = || {
                            after.hosts[host].document.waits_for(&key(name), index)
                                == Some(after.hosts[old].id())
                        };
                        store(old).is_some()
                            && store(old) == store(host)
                            && (!after.hosts[old].alive || lets_go())
                    };
                    assert!(
                        !is_partitioned(deployment) || owner.is_none_or(|(old, ..)| takes_over(*old)),
                        "{name}/{index} left its state behind"
                    );
                }
            }
            if is_partitioned(deployment) {
                let HostSpec { id, store, .. } = after.hosts[host].spec.clone();
                assert_eq!(
                    after.ownership[&key(name)].home(index),
                    Some(&Home { host: id, store }),
                    "{name}/{index} is not where its state is recorded to be"
                );
            }
            seen.insert((name, index), (host, epoch));
        }
        if gone {
            assert!(after.owners(name).is_empty(), "{name} is gone and still assigned");
        }
    }
    check_capacity(before, after);
    check_purges(after);
    check_transitions(before, after);
}

fn used(town: &Town, number: usize) -> (u64, u64) {
    let mut used = (0, 0);
    for (key, replicas) in &town.hosts[number].document.groups {
        let deployment = &town.deployments[&key.deployment];
        for ownership in replicas.values() {
            let accepted = deployment.accepted(ownership.generation).expect("no generation is dropped here");
            let resources = &accepted.group(&key.group).expect("the group").tasks[0].resources;
            used.0 += u64::from(resources.reserved_cpu().0);
            used.1 += u64::from(resources.memory);
        }
    }
    used
}

fn check_capacity(before: &Town, after: &Town) {
    for (number, host) in after.hosts.iter().enumerate() {
        if before.hosts[number].document != host.document {
            let (cpu, memory) = used(after, number);
            assert!(
                cpu <= u64::from(host.spec.cpu.0) && memory <= host.spec.memory,
                "{} is overfull",
                host.id()
            );
        }
        for (key, replicas) in &host.document.groups {
            let deployment = &after.deployments[&key.deployment];
            for ownership in replicas.values() {
                let accepted = deployment.accepted(ownership.generation).expect("kept");
                let constraints = &accepted.group(&key.group).expect("the group").constraints;
                let zone = &host.spec.attributes["zone"];
                assert!(
                    constraints.iter().all(|c| c.value.contains(zone)),
                    "{} is in zone {zone}",
                    host.id()
                );
            }
        }
    }
}

fn check_purges(after: &Town) {
    for host in &after.hosts {
        for (key, purged) in &host.document.purge {
            let shares = |other: &&TownHost| {
                other.id() == host.id() || other.spec.store.is_some() && other.spec.store == host.spec.store
            };
            for other in after.hosts.iter().filter(shares) {
                let assigned = other.document.groups.get(key);
                let both = purged.iter().find(|index| assigned.is_some_and(|a| a.contains_key(index)));
                assert_eq!(both, None, "{} deletes what {} runs: {key}", host.id(), other.id());
                let told = other.document.purge.get(key).filter(|_| other.id() != host.id());
                let twice = purged.iter().find(|index| told.is_some_and(|told| told.contains(index)));
                assert_eq!(twice, None, "{} and {} delete the same: {key}", host.id(), other.id());
            }
        }
    }
}

/// Replicas of living hosts that have reported, whose assigned generation is not what they serve.
fn in_transition(town: &Town, name: &str) -> usize {
    let group = key(name);
    town.owners(name)
        .into_iter()
        .filter(|(index, (host, generation, epoch))| {
            let host = &town.hosts[*host];
            let report = host.observed.as_ref().and_then(|observed| observed.replica(&group, *index));
            host.alive
                && !report.is_some_and(|report| report.generation == *generation && report.epoch == *epoch)
        })
        .count()
}

fn check_transitions(before: &Town, after: &Town) {
    for (name, document) in &after.deployments {
        if document.stop.is_some() {
            continue;
        }
        let limit = document.current.spec.jobs[0].groups[0].update.max_parallel;
        let had = before.owners(name.as_str());
        let started =
            after.owners(name.as_str()).into_keys().filter(|index| !had.contains_key(index)).count();
        let displaced = had.values().filter(|(host, ..)| !before.hosts[*host].alive).count();
        let was = in_transition(before, name.as_str());
        let is = in_transition(after, name.as_str());
        let allowed = was.max(usize::try_from(limit).expect("small")) + started + displaced;
        assert!(is <= allowed, "{name}: {is} change at once, {allowed} may");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_rules_hold(events in prop::collection::vec(event(), 1..60)) {
        let mut town = Town::with_hosts(2);
        let mut seen = Seen::new();
        for event in &events {
            happen(&mut town, event);
            let before = town.clone();
            let plan = town.round();
            check(&before, &town, &plan, &mut seen);
            let mut turned = before.clone();
            turned.hosts.reverse();
            prop_assert_eq!(&turned.plan(), &plan, "the order of hosts matters");
        }
        // In the end all hosts come back and obey: what is wanted either runs as wanted or says why not.
        for host in &mut town.hosts {
            host.alive = true;
        }
        town.settle();
        let plan = town.plan();
        let waiting = plan.steps.iter().all(|step| matches!(step.action, StepAction::Wait { .. }));
        prop_assert!(waiting && plan.stops.is_empty(), "{:#?}", plan);
    }

    #[test]
    fn what_moves_is_what_lost_its_host(
        copies in 1..60_u32, hosts in 2..12_usize, lost in prop::collection::btree_set(0..12_usize, 1..4)
    ) {
        let mut town = Town::with_hosts(hosts);
        town.deploy("aa", &partitions(copies));
        town.deploy("bb", &replicas(copies));
        town.settle();
        let before = [town.owners("aa"), town.owners("bb")];
        let lost: Vec<usize> = lost.into_iter().filter(|host| *host < hosts).collect();
        for host in &lost {
            town.hosts[*host].alive = false;
        }
        town.round();
        prop_assert_eq!(&town.owners("aa"), &before[0]);
        let any_left = lost.len() < hosts;
        for (index, owner) in town.owners("bb") {
            let displaced = any_left && lost.contains(&before[1][&index].0);
            prop_assert_eq!(owner != before[1][&index], displaced);
        }
    }
}
