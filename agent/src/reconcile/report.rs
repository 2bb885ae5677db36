//! What this host tells of its replicas. Pure.

use std::collections::{BTreeMap, BTreeSet};

use hvm_types::{Assignment, HostDocument, ReplicaId, ReplicaReport, ReplicaState};

use super::observed::{Activity, ModuleKey, ModuleStatus, Observed, ObservedReplica, Running, Wanted};

/// One report for each replica that is assigned here or still here.
pub(crate) fn report(document: &HostDocument, observed: &Observed) -> Vec<ReplicaReport> {
    let assigned: BTreeMap<&ReplicaId, &Assignment> =
        document.assignments.iter().map(|assignment| (&assignment.replica, assignment)).collect();
    let all: BTreeSet<&ReplicaId> = assigned.keys().copied().chain(observed.replicas.keys()).collect();
    all.into_iter()
        .filter_map(|replica| report_one(replica, assigned.get(replica).copied(), observed))
        .collect()
}

/// The report of one replica; `None` where it is neither assigned here nor still here.
pub(crate) fn report_one(
    replica: &ReplicaId,
    assignment: Option<&Assignment>,
    observed: &Observed,
) -> Option<ReplicaReport> {
    let nothing = ObservedReplica::default();
    let there = observed.replicas.get(replica);
    if there.is_none() && assignment.is_none() {
        return None;
    }
    let there = there.unwrap_or(&nothing);
    Some(match (&there.running, assignment) {
        (Some(running), assignment) => {
            let next = assignment
                .filter(|assignment| assignment.generation != running.generation)
                .map(|assignment| (assignment.generation, coming_state(assignment, there, observed)));
            report_running(replica, running, running_state(there), next)
        }
        (None, Some(assignment)) => {
            let state = coming_state(assignment, there, observed);
            report_running(replica, &Running::of(assignment), state, None)
        }
        // Its purge is under way or failed; what ran is not known any more.
        (None, None) => ReplicaReport {
            replica: replica.clone(),
            generation: Default::default(),
            epoch: Default::default(),
            image: hvm_types::Digest::from_bytes([0; 32]),
            state: match &there.failure {
                Some((_, failure)) => ReplicaState::Failed { reason: failure.reason.clone() },
                None => ReplicaState::Draining,
            },
            next: None,
        },
    })
}

fn report_running(
    replica: &ReplicaId,
    running: &Running,
    state: ReplicaState,
    next: Option<(hvm_types::Generation, ReplicaState)>,
) -> ReplicaReport {
    ReplicaReport {
        replica: replica.clone(),
        generation: running.generation,
        epoch: running.epoch,
        image: running.image,
        state,
        next,
    }
}

/// The state of what runs.
fn running_state(there: &ObservedReplica) -> ReplicaState {
    match (there.activity, &there.seen) {
        (Some(Activity::Closing), _) => ReplicaState::Draining,
        (_, Some(state)) => state.clone(),
        (_, None) => ReplicaState::Recovering,
    }
}

/// The state of what is to run and does not yet.
fn coming_state(assignment: &Assignment, there: &ObservedReplica, observed: &Observed) -> ReplicaState {
    let failure = there.failure.as_ref().filter(|(tried, _)| *tried == Wanted::run(assignment));
    match there.activity {
        // An update that is tried again has failed until it succeeds: others wait for it.
        Some(Activity::Upgrading) if failure.is_some() => {}
        Some(Activity::Opening | Activity::Upgrading) => return ReplicaState::Recovering,
        _ => {}
    }
    if let Some((_, failure)) = failure {
        return match there.fenced {
            Some(epoch) => ReplicaState::Fenced { epoch },
            None => ReplicaState::Failed { reason: failure.reason.clone() },
        };
    }
    match observed.modules.get(&ModuleKey::of(assignment)) {
        None | Some(ModuleStatus::Ready) => ReplicaState::Assigned,
        Some(ModuleStatus::Pulling) => ReplicaState::Pulling,
        Some(ModuleStatus::Verifying) => ReplicaState::Verifying,
        Some(ModuleStatus::Compiling) => ReplicaState::Compiling,
        Some(ModuleStatus::Failed(failure)) => ReplicaState::Failed { reason: failure.reason.clone() },
    }
}
