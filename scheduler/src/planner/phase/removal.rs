//! First phase: who owns what; what nobody wants any more goes.

use std::collections::HashMap;
use std::sync::Arc;

use crate::documents::{GroupKey, Home};
use crate::planner::draft::Draft;
use crate::planner::fleet::Fleet;
use crate::planner::group::{Group, Owner};
use crate::planner::{Observation, PlanInput, RemoveReason, StepAction};

/// The wanted groups with their owners.
pub(super) fn run<'a>(input: &PlanInput<'a>, fleet: &mut Fleet<'a>, draft: &mut Draft) -> Vec<Group<'a>> {
    let mut groups = Vec::new();
    for document in input.deployments.values().filter(|document| document.stop.is_none()) {
        for (key, spec) in document.current.keyed_groups() {
            groups.push(Group::new(key, spec, document, input, fleet));
        }
    }
    groups.sort_by(|a, b| a.key.cmp(&b.key));
    let numbers: HashMap<Arc<GroupKey>, usize> =
        groups.iter().enumerate().map(|(number, group)| (Arc::clone(&group.key), number)).collect();
    for host in 0..fleet.hosts.len() {
        forget_purged(input, fleet, draft, host);
        hand_over_purges(fleet, draft, host);
        end_waits(fleet, draft, host);
    }
    for host in 0..fleet.hosts.len() {
        for (key, replicas) in &fleet.input(host).assignments.groups {
            let owned =
                replicas.iter().map(|(index, ownership)| (*index, Owner { host, ownership: *ownership }));
            match numbers.get(key) {
                Some(&number) => claim(&mut groups[number], fleet, draft, owned),
                None => {
                    let gone = input.deployments.get(&key.deployment).is_none_or(|d| d.stop.is_some());
                    let why = if gone { RemoveReason::Stopped } else { RemoveReason::NotWanted };
                    let key = Arc::new(key.clone());
                    for (index, _) in owned {
                        remove(&key, index, host, why, fleet, draft);
                    }
                }
            }
        }
        for key in draft.seen(fleet, host).purge.keys() {
            if let Some(&number) = numbers.get(key) {
                // Who shares its store would find what is to be deleted.
                groups[number].purging.extend(fleet.sharing(host));
            }
        }
    }
    for group in &mut groups {
        group.settle_owners(fleet, draft);
        group.renew_fenced(fleet, draft);
    }
    groups
}

/// Takes in what a host owns of a group. Of two owners of one replica, the higher epoch holds.
fn claim(
    group: &mut Group<'_>,
    fleet: &Fleet<'_>,
    draft: &mut Draft,
    owned: impl Iterator<Item = (u32, Owner)>,
) {
    let key = Arc::clone(&group.key);
    for (index, owner) in owned {
        let slot = usize::try_from(index).ok().and_then(|at| group.owners.get_mut(at));
        let Some(slot) = slot else {
            remove(&key, index, owner.host, RemoveReason::NotWanted, fleet, draft);
            continue;
        };
        match slot.replace(owner) {
            Some(other) if other.ownership.epoch >= owner.ownership.epoch => {
                *slot = Some(other);
                remove(&key, index, owner.host, RemoveReason::Superseded, fleet, draft);
            }
            Some(other) => remove(&key, index, other.host, RemoveReason::Superseded, fleet, draft),
            None => {}
        }
    }
}

fn remove(
    key: &Arc<GroupKey>,
    index: u32,
    host: usize,
    why: RemoveReason,
    fleet: &Fleet<'_>,
    draft: &mut Draft,
) {
    draft.remove(fleet, host, key, index);
    draft.step(key, index, StepAction::Remove { host: fleet.id(host).clone(), why });
}

/// Drops the purges that a host has done, and that its state was there.
fn forget_purged(input: &PlanInput<'_>, fleet: &Fleet<'_>, draft: &mut Draft, host: usize) {
    let seen = fleet.input(host);
    let Some(observed) = seen.observed.filter(|observed| observed.has_applied(seen.version)) else { return };
    for (key, indexes) in &seen.assignments.purge {
        let done: Vec<u32> =
            indexes.iter().copied().filter(|index| observed.replica(key, *index).is_none()).collect();
        if done.is_empty() {
            continue;
        }
        let purge = &mut draft.host(fleet, host).purge;
        if let Some(left) = purge.get_mut(key) {
            left.retain(|index| !done.contains(index));
            if left.is_empty() {
                purge.remove(key);
            }
        }
        let Some(recorded) = input.ownership.get(key) else { continue };
        let document = draft.ownership.entry(key.clone()).or_insert_with(|| (*recorded).clone());
        for index in done {
            let was_here = |home: &Home| match &home.store {
                Some(store) => fleet.store(host) == Some(store),
                None => home.host == *fleet.id(host),
            };
            if document.home(index).is_some_and(was_here) {
                document.clear_home(index);
            }
        }
    }
}

/// Lets a host have what others have let go of, or can't answer for any more.
fn end_waits(fleet: &Fleet<'_>, draft: &mut Draft, host: usize) {
    for (key, waits) in &fleet.input(host).assignments.waits {
        for (index, from) in waits {
            let has_let_go = fleet.number(from).is_none_or(|from| {
                let from = fleet.input(from);
                let is_told = from.assignments.groups.get(key).is_none_or(|owned| !owned.contains_key(index));
                let is_gone = |observed: &Observation| {
                    observed.has_applied(from.version) && observed.replica(key, *index).is_none()
                };
                !from.alive || is_told && from.observed.is_some_and(is_gone)
            });
            if has_let_go {
                draft.host(fleet, host).stop_waiting(key, *index);
            }
        }
    }
}

/// Gives the purges of a lost host to a living one with the same store: the state is theirs to delete as well, and a new
/// deployment of that name shall not wait for the lost one.
fn hand_over_purges(fleet: &Fleet<'_>, draft: &mut Draft, host: usize) {
    if fleet.input(host).alive || draft.seen(fleet, host).purge.is_empty() {
        return;
    }
    let Some(heir) = fleet.sharing(host).find(|other| fleet.input(*other).alive) else { return };
    for (key, indexes) in std::mem::take(&mut draft.host(fleet, host).purge) {
        draft.host(fleet, heir).purge.entry(key).or_default().extend(indexes);
    }
}
