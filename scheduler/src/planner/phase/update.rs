//! Second phase: replicas of older generations get the current one.
//!
//! A replica is *in transition* until its host has reported that it serves the generation it is assigned.
//! At most `max_parallel` of a group are; those of lost hosts are not counted, because an update can't wait
//! for them. A replica in transition may be given a newer generation at once: it is changing anyway, and
//! this is how a correction reaches the ones that a broken generation stopped. As long as one replica of a group
//! reports that the generation it is assigned failed, no other begins to change to it.

use hvm_types::{Generation, ReplicaReport, ReplicaState};

use crate::planner::draft::Draft;
use crate::planner::fleet::Fleet;
use crate::planner::group::{Group, Owner};
use crate::planner::{HostRefusal, StepAction, WaitReason};

/// A replica that is to be changed.
struct Pending {
    index: u32,
    in_transition: bool,
    /// Why it could not be, when it was tried.
    refused: Option<HostRefusal>,
}

/// The replicas of a group that are to be changed, and how many more may begin to.
struct Queue {
    pending: Vec<Pending>,
    budget: u32,
    /// Why no other may begin.
    failed: Option<WaitReason>,
}

pub(super) fn run(groups: &mut [Group<'_>], fleet: &mut Fleet<'_>, draft: &mut Draft) {
    let mut queues: Vec<Queue> = groups.iter_mut().map(|group| queue(group, fleet, draft)).collect();
    // An update that needs less than before makes room for others: again, until nothing more fits. Each
    // round but the last changes a replica, so there are at most as many rounds as replicas.
    loop {
        let mut progress = false;
        for (group, queue) in groups.iter_mut().zip(&mut queues) {
            let before = queue.pending.len();
            work_off(group, queue, fleet, draft);
            progress |= queue.pending.len() < before;
        }
        if !progress {
            break;
        }
    }
    for (group, queue) in groups.iter_mut().zip(queues) {
        let Queue { pending, failed, .. } = queue;
        for Pending { index, refused, .. } in pending {
            let Some(Owner { host, .. }) = group.owner(index) else { continue };
            let host = fleet.id(host).clone();
            let reason = match refused {
                Some(refusal) => WaitReason::UpdateRefused { host: host.clone(), refusal },
                None => failed
                    .clone()
                    .unwrap_or(WaitReason::MaxParallel { limit: group.spec.update.max_parallel }),
            };
            group.touch(draft, index, StepAction::Wait { host: Some(host), reason });
        }
    }
}

fn queue(group: &mut Group<'_>, fleet: &Fleet<'_>, draft: &mut Draft) -> Queue {
    let mut pending = Vec::new();
    let mut changing = 0_u32;
    let mut failed = None;
    for index in group.indexes() {
        let Some(owner) = group.owner(index) else { continue };
        let host = fleet.input(owner.host);
        if !host.alive {
            continue;
        }
        let outdated = owner.ownership.generation != group.generation();
        let Some(observed) = host.observed else {
            changing += 1;
            if outdated {
                let host = host.spec.id.clone();
                let reason = WaitReason::HostSilent { host: host.clone() };
                group.touch(draft, index, StepAction::Wait { host: Some(host), reason });
            }
            continue;
        };
        let report = observed.replica(&group.key, index);
        if failed.is_none()
            && let Some(reason) = report.and_then(|report| failure_of(report, group.generation()))
        {
            let (host, reason) = (host.spec.id.clone(), reason.into());
            failed = Some(WaitReason::UpdateFailed { index, host, reason });
        }
        let serves = report.is_some_and(|report| {
            report.state.serves()
                && report.generation == owner.ownership.generation
                && report.epoch == owner.ownership.epoch
        });
        changing += u32::from(!serves);
        if outdated || fleet.excludes(owner.host, &group.spec.constraints) {
            pending.push(Pending { index, in_transition: !serves, refused: None });
        }
    }
    let budget = match failed {
        Some(_) => 0,
        None => group.spec.update.max_parallel.saturating_sub(changing),
    };
    Queue { pending, budget, failed }
}

/// Why a replica does not run this generation, where its host tried.
fn failure_of(report: &ReplicaReport, generation: Generation) -> Option<&str> {
    let (of, state) = match &report.next {
        Some((next, state)) => (*next, state),
        None => (report.generation, &report.state),
    };
    match state {
        ReplicaState::Failed { reason } if of == generation => Some(reason),
        _ => None,
    }
}

fn work_off(group: &mut Group<'_>, queue: &mut Queue, fleet: &mut Fleet<'_>, draft: &mut Draft) {
    let Queue { pending, budget, .. } = queue;
    pending.retain_mut(|replica| {
        if !replica.in_transition && *budget == 0 {
            replica.refused = None;
            return true;
        }
        replica.refused = change(group, replica.index, fleet, draft);
        if replica.refused.is_none() && !replica.in_transition {
            *budget -= 1;
        }
        replica.refused.is_some()
    });
}

/// Changes a replica in place, or else, if it has no state, moves it. Returns why it can't be done.
fn change(
    group: &mut Group<'_>,
    index: u32,
    fleet: &mut Fleet<'_>,
    draft: &mut Draft,
) -> Option<HostRefusal> {
    let owner = group.owner(index)?;
    fleet.release(owner.host, group.demand_of(owner));
    let refusal = fleet.refusal(owner.host, &group.spec.constraints, group.demand);
    let demand = if refusal.is_none() { group.demand } else { group.demand_of(owner) };
    fleet.reserve(owner.host, demand);
    if refusal.is_none() {
        group.update(fleet, draft, index);
        return None;
    }
    if !group.stateful()
        && let Some(host) = group.choose(fleet, index, false)
    {
        group.place(fleet, draft, index, host);
        return None;
    }
    refusal
}
