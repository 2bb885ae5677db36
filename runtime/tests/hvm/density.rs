//! Many partitions on one host: what is told of those that change, and what the host's limits allow.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use hvm_runtime::state::{LocalConfig, LocalEngine};
use hvm_runtime::{HostLimits, Hvm, HvmConfig, StartError};
use hvm_types::{ReplicaId, ReplicaState};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::bed::{Bed, first, id, request};

const CHILD: &str = "HVM_TEST_LITTLE_ADDRESS_SPACE";
const PATIENCE: Duration = Duration::from_secs(20);

/// Takes changes in until each partition is in the state that it should be in.
async fn until(
    changes: &mut hvm_runtime::StateChanges,
    states: &mut BTreeMap<ReplicaId, ReplicaState>,
    is_there: impl Fn(&BTreeMap<ReplicaId, ReplicaState>) -> bool,
) {
    while !is_there(states) {
        let next = tokio::time::timeout(PATIENCE, changes.next()).await;
        states.extend(next.expect("the change is told"));
    }
}

#[tokio::test]
async fn what_changes_its_state_is_told_and_what_does_not_is_not() {
    let bed = Bed::with(|config| config.hibernate_after = Duration::from_millis(50));
    let ids: Vec<ReplicaId> = (0..3).map(|n| id(&format!("test/probe/{n}"))).collect();
    bed.open(&ids[0], |_| {}).await;
    let mut changes = bed.hvm.state_changes();
    for id in &ids[1..] {
        bed.open(id, |_| {}).await;
    }
    let mut states = BTreeMap::new();
    let all_hibernated = |states: &BTreeMap<ReplicaId, ReplicaState>| {
        states.len() == 3 && states.values().all(|state| *state == ReplicaState::Hibernated)
    };
    until(&mut changes, &mut states, all_hibernated).await;

    bed.request(&ids[1], request(Method::GET, "/", "")).await.expect("it wakes");
    states.clear();
    until(&mut changes, &mut states, |states| states.get(&ids[1]) == Some(&ReplicaState::Hibernated)).await;
    assert_eq!(states.len(), 1, "nothing else changed: {states:?}");
    bed.hvm.close(&ids[1]).await.expect("closed");
    until(&mut changes, &mut states, |states| states.get(&ids[1]) == Some(&ReplicaState::Stopped)).await;
}

#[tokio::test]
async fn the_instance_that_was_used_least_recently_makes_room() {
    let bed = Bed::with(|config| config.max_instances = 3);
    let ids: Vec<ReplicaId> = (0..4).map(|n| id(&format!("test/probe/{n}"))).collect();
    let ask = async |n: usize| {
        bed.request(&ids[n], request(Method::POST, "/kv/incr?k=n", "")).await.expect("answered");
    };
    for id in &ids {
        bed.open(id, |_| {}).await;
    }
    for n in [1, 2, 3, 1] {
        ask(n).await;
    }
    ask(0).await;
    let live = |n: usize| bed.status(&ids[n]).expect("open").instances;
    assert_eq!([live(0), live(1), live(2), live(3)], [1, 1, 0, 1]);
}

#[tokio::test]
async fn more_instances_than_the_first_places_are_live_at_once_and_apart_from_each_other() {
    const LIVE: usize = 300;
    let bed = Bed::with(|config| config.max_instances = 320);
    let ids: Vec<ReplicaId> = (0..LIVE).map(|n| id(&format!("test/probe/{n}"))).collect();
    for id in &ids {
        bed.open(id, |_| {}).await;
    }
    for round in ["1", "2"] {
        for id in &ids {
            let counted = bed.request(id, request(Method::POST, "/counter-in-memory", "")).await;
            assert_eq!(counted.expect("answered").text(), round, "{id}");
        }
    }
    let live = ids.iter().map(|id| bed.status(id).expect("open").instances);
    assert_eq!(live.sum::<u32>() as usize, LIVE);
}

/// Not a test of its own: what the test below runs in a process of its own. Without its variable it does nothing.
#[test]
fn start_in_little_address_space() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let maximum = getrlimit(Resource::As).maximum;
    setrlimit(Resource::As, Rlimit { current: Some(64 << 30), maximum }).expect("a lower soft limit");
    let directory = tempfile::tempdir().expect("a temporary directory");
    let start = |config: HvmConfig| {
        let state =
            LocalEngine::start(LocalConfig::new(directory.path().join("state"))).expect("a new state");
        Hvm::start(config, Arc::new(state))
    };
    let config = || HvmConfig::new(directory.path().join("code"));
    let refused = start(HvmConfig { max_instances: 1_024, ..config() }).expect_err("4 TiB do not fit");
    assert!(matches!(refused, StartError::AddressSpace { .. }), "{refused}");
    assert!(refused.to_string().contains("`ulimit -v unlimited`"), "{refused}");
    assert!(!HostLimits::read().advice().is_empty());
    let fits = start(config()).expect("by default, as many instances as fit");
    drop(fits);
}

#[test]
fn a_process_with_little_address_space_is_told_what_to_change_and_starts_with_what_fits() {
    let program = std::env::current_exe().expect("this program has a path");
    let child = Command::new(program)
        .args(["--exact", "density::start_in_little_address_space"])
        .env(CHILD, "1")
        .output()
        .expect("the test can be run again");
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
}

#[tokio::test]
async fn a_waking_partition_keeps_what_it_had_committed() {
    let bed = Bed::with(|config| config.hibernate_after = Duration::from_millis(50));
    bed.open(&first(), |_| {}).await;
    for round in 1..=3 {
        let counted = bed.post("/kv/incr?k=n", "").await.expect("counted").text();
        assert_eq!(counted, round.to_string());
        bed.until(&first(), |status| status.state == ReplicaState::Hibernated).await;
    }
}
