//! The next steps from what is there to what the host document asks for. Pure: the time is passed in, and
//! the same inputs give the same steps.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Instant;

use hvm_types::{Assignment, HostDocument, ReplicaId};

use super::observed::{ModuleKey, ModuleStatus, Observed, ObservedReplica, Running, Wanted};

/// One thing to do now. Steps of different replicas and modules can go on at the same time; no two steps of
/// one plan concern the same one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Finish what a replica has accepted and end it. Its durable state stays.
    Close { replica: ReplicaId },
    /// Delete the durable state and the logs of a replica that does not run.
    Purge { replica: ReplicaId },
    /// Fetch, verify and compile a component.
    Prepare { module: ModuleKey },
    /// Take over a new generation that runs the same thing: nothing is restarted.
    Adopt { assignment: Assignment },
    /// Replace what runs in place. A failure leaves it serving.
    Upgrade { assignment: Assignment },
    /// Run a replica.
    Open { assignment: Assignment },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Close { replica } => write!(f, "close {replica}"),
            Self::Purge { replica } => write!(f, "purge {replica}"),
            Self::Prepare { module } => write!(f, "prepare package {} of {}", module.package, module.image),
            Self::Adopt { assignment } => {
                write!(f, "adopt generation {} of {}", assignment.generation, assignment.replica)
            }
            Self::Upgrade { assignment } => {
                write!(f, "upgrade {} to generation {}", assignment.replica, assignment.generation)
            }
            Self::Open { assignment } => {
                write!(f, "open {} at generation {}", assignment.replica, assignment.generation)
            }
        }
    }
}

/// Plans all steps that can begin now: removals before additions. A step that failed waits for its time; a
/// replica or module that a step is under way for gets none.
pub(crate) fn plan_steps(desired: &HostDocument, observed: &Observed, now: Instant) -> Vec<Step> {
    let wanted: BTreeMap<&ReplicaId, &Assignment> =
        desired.assignments.iter().map(|assignment| (&assignment.replica, assignment)).collect();
    let mut steps = plan_closes(&wanted, observed, now);
    steps.extend(plan_purges(desired, &wanted, observed, now));
    steps.extend(plan_preparations(&wanted, observed, now));
    steps.extend(plan_starts(&wanted, observed, now));
    steps
}

/// Whether every removal and purge that the document asks for is done.
pub(crate) fn removals_are_done(desired: &HostDocument, observed: &Observed) -> bool {
    let wanted: BTreeSet<&ReplicaId> =
        desired.assignments.iter().map(|assignment| &assignment.replica).collect();
    let gone = |replica: &ReplicaId| {
        observed.replicas.get(replica).is_none_or(|there| there.running.is_none() && !there.is_busy())
    };
    observed.replicas.keys().all(|replica| wanted.contains(replica) || gone(replica))
        && desired.purge.iter().all(|replica| gone(replica) && has_state(observed, replica) == Some(false))
}

/// When a plan may have steps that it does not have now, if nothing else changes.
pub(crate) fn next_retry(observed: &Observed, now: Instant) -> Option<Instant> {
    let replicas = observed.replicas.values().filter_map(|there| Some(there.failure.as_ref()?.1.retry_at));
    let modules = observed.modules.values().filter_map(|status| match status {
        ModuleStatus::Failed(failure) => Some(failure.retry_at),
        _ => None,
    });
    replicas.chain(modules).filter(|at| *at > now).min()
}

fn plan_closes(wanted: &BTreeMap<&ReplicaId, &Assignment>, observed: &Observed, now: Instant) -> Vec<Step> {
    let must_go = |replica: &ReplicaId, there: &ObservedReplica, running: &Running| match wanted.get(replica)
    {
        None => may_try(there, Wanted::Gone, now),
        // A new ownership begins with an empty instance and a newly opened state.
        Some(assignment) if assignment.epoch != running.epoch || assignment.stateful != running.stateful => {
            may_try(there, Wanted::run(assignment), now)
        }
        Some(assignment) => there.broken.is_some() && may_try(there, Wanted::run(assignment), now),
    };
    let closing = observed.replicas.iter().filter(|(replica, there)| {
        !there.is_busy() && there.running.as_ref().is_some_and(|running| must_go(replica, there, running))
    });
    closing.map(|(replica, _)| Step::Close { replica: replica.clone() }).collect()
}

fn plan_purges(
    desired: &HostDocument,
    wanted: &BTreeMap<&ReplicaId, &Assignment>,
    observed: &Observed,
    now: Instant,
) -> Vec<Step> {
    let due = desired.purge.iter().filter(|replica| {
        let idle = observed.replicas.get(replica).is_none_or(|there| {
            !there.is_busy() && there.running.is_none() && may_try(there, Wanted::Gone, now)
        });
        idle && has_state(observed, replica) == Some(true) && !wanted.contains_key(replica)
    });
    due.map(|replica| Step::Purge { replica: replica.clone() }).collect()
}

fn plan_preparations(
    wanted: &BTreeMap<&ReplicaId, &Assignment>,
    observed: &Observed,
    now: Instant,
) -> Vec<Step> {
    let missing: BTreeSet<ModuleKey> = wanted
        .values()
        .filter(|assignment| {
            let running = observed.replicas.get(&assignment.replica).and_then(|there| there.running.as_ref());
            running.is_none_or(|running| !runs_the_same(running, assignment))
        })
        .map(|assignment| ModuleKey::of(assignment))
        .filter(|module| match observed.modules.get(module) {
            None => true,
            Some(ModuleStatus::Failed(failure)) => failure.is_due(now),
            Some(_) => false,
        })
        .collect();
    missing.into_iter().map(|module| Step::Prepare { module }).collect()
}

fn plan_starts(wanted: &BTreeMap<&ReplicaId, &Assignment>, observed: &Observed, now: Instant) -> Vec<Step> {
    let nothing = ObservedReplica::default();
    let start = |assignment: &Assignment| {
        let there = observed.replicas.get(&assignment.replica).unwrap_or(&nothing);
        if there.is_busy() || !may_try(there, Wanted::run(assignment), now) {
            return None;
        }
        let is_ready = observed.modules.get(&ModuleKey::of(assignment)) == Some(&ModuleStatus::Ready);
        let assignment = assignment.clone();
        match &there.running {
            None => is_ready.then_some(Step::Open { assignment }),
            Some(running) if running.epoch != assignment.epoch || running.stateful != assignment.stateful => {
                None // it is closed first
            }
            Some(_) if there.broken.is_some() => None, // likewise
            Some(running) if runs_the_same(running, &assignment) => {
                (running.generation != assignment.generation).then_some(Step::Adopt { assignment })
            }
            Some(_) => is_ready.then_some(Step::Upgrade { assignment }),
        }
    };
    wanted.values().filter_map(|assignment| start(assignment)).collect()
}

/// Whether durable state of the replica is here; `None` where that is not known.
fn has_state(observed: &Observed, replica: &ReplicaId) -> Option<bool> {
    Some(observed.stored.as_ref()?.contains(replica))
}

/// Whether the assignment differs from what runs in its generation at most.
fn runs_the_same(running: &Running, assignment: &Assignment) -> bool {
    running.image == assignment.image
        && running.task == assignment.task
        && running.retention == assignment.retention
        && running.epoch == assignment.epoch
}

/// Whether the last step did not fail, wanted something else, or failed long enough ago.
fn may_try(there: &ObservedReplica, wanted: Wanted, now: Instant) -> bool {
    there.failure.as_ref().is_none_or(|(tried, failure)| *tried != wanted || failure.is_due(now))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use hvm_types::{Digest, Epoch, Generation};

    use super::super::backoff::Failure;
    use super::super::observed::{Activity, StepFailure};
    use super::*;

    fn assignment(replica: &str, generation: u64, epoch: u64) -> Assignment {
        let task =
            serde_json::from_str(r#"{"name": "t", "driver": "app-partition", "config": {"package": "web"}}"#)
                .map(Arc::new);
        Assignment {
            replica: replica.parse().expect("a replica"),
            generation: Generation(generation),
            epoch: Epoch(epoch),
            image: Digest::of(&generation.to_be_bytes()),
            stateful: true,
            retention: hvm_types::RetentionSpec::default(),
            task: task.expect("a task"),
        }
    }

    fn document(assignments: Vec<Assignment>) -> HostDocument {
        HostDocument { assignments, ..HostDocument::default() }
    }

    fn running(assignment: &Assignment) -> (ReplicaId, ObservedReplica) {
        let running = Some(Running::of(assignment));
        (assignment.replica.clone(), ObservedReplica { running, ..ObservedReplica::default() })
    }

    fn ready(assignment: &Assignment) -> (ModuleKey, ModuleStatus) {
        (ModuleKey::of(assignment), ModuleStatus::Ready)
    }

    fn stored(observed: &mut Observed) -> &mut BTreeSet<ReplicaId> {
        observed.stored.get_or_insert_default()
    }

    /// What the steps lead to, each done at once: for checking that a plan comes to an end.
    fn apply(observed: &mut Observed, steps: Vec<Step>) {
        for step in steps {
            match step {
                Step::Close { replica } => drop(observed.replicas.remove(&replica)),
                Step::Purge { replica } => drop(stored(observed).remove(&replica)),
                Step::Prepare { module } => drop(observed.modules.insert(module, ModuleStatus::Ready)),
                Step::Adopt { assignment } | Step::Upgrade { assignment } | Step::Open { assignment } => {
                    stored(observed).insert(assignment.replica.clone());
                    observed.replicas.extend([running(&assignment)]);
                }
            }
        }
    }

    #[test]
    fn removals_stand_before_additions() {
        let now = Instant::now();
        let (old, new) = (assignment("d/g/9", 1, 1), assignment("d/g/0", 1, 1));
        let observed = Observed {
            replicas: [running(&old)].into(),
            modules: [ready(&new)].into(),
            ..Observed::default()
        };
        let steps = plan_steps(&document(vec![new.clone()]), &observed, now);
        assert_eq!(steps, [Step::Close { replica: old.replica }, Step::Open { assignment: new }]);
    }

    #[test]
    fn a_component_is_prepared_once_for_all_its_replicas_and_before_they_open() {
        let now = Instant::now();
        let desired = document((0..16).map(|n| assignment(&format!("d/g/{n}"), 1, 1)).collect());
        let mut observed = Observed::default();
        let steps = plan_steps(&desired, &observed, now);
        assert_eq!(steps, [Step::Prepare { module: ModuleKey::of(&desired.assignments[0]) }]);
        observed.modules.insert(ModuleKey::of(&desired.assignments[0]), ModuleStatus::Compiling);
        assert_eq!(plan_steps(&desired, &observed, now), []);
        observed.modules.insert(ModuleKey::of(&desired.assignments[0]), ModuleStatus::Ready);
        assert_eq!(plan_steps(&desired, &observed, now).len(), 16);
    }

    #[test]
    fn a_plan_that_was_done_is_followed_by_an_empty_one() {
        let now = Instant::now();
        let mut desired = document((0..5).map(|n| assignment(&format!("d/g/{n}"), 2, 1)).collect());
        desired.purge = vec!["d/gone/0".parse().expect("a replica")];
        let mut observed = Observed {
            replicas: [
                running(&assignment("d/g/0", 1, 1)),
                running(&assignment("d/g/1", 2, 7)),
                running(&assignment("d/gone/0", 1, 1)),
                running(&assignment("d/other/3", 1, 1)),
            ]
            .into(),
            stored: Some(["d/gone/0".parse().expect("a replica")].into()),
            ..Observed::default()
        };
        assert!(!removals_are_done(&desired, &observed));
        let mut rounds = 0;
        loop {
            let steps = plan_steps(&desired, &observed, now);
            assert_eq!(steps, plan_steps(&desired, &observed, now), "same inputs, same steps");
            if steps.is_empty() {
                break;
            }
            apply(&mut observed, steps);
            rounds += 1;
            assert!(rounds < 5, "the plan does not come to an end");
        }
        let now_running: BTreeMap<_, _> = desired.assignments.iter().map(running).collect();
        assert_eq!(observed.replicas.keys().collect::<Vec<_>>(), now_running.keys().collect::<Vec<_>>());
        assert!(observed.replicas.values().zip(now_running.values()).all(|(a, b)| a.running == b.running));
        assert!(removals_are_done(&desired, &observed));
    }

    #[test]
    fn nothing_is_purged_and_nothing_is_confirmed_before_the_durable_state_was_listed() {
        let purge = vec!["d/gone/0".parse().expect("a replica")];
        let desired = HostDocument { purge, ..HostDocument::default() };
        let mut observed = Observed::default();
        assert_eq!(plan_steps(&desired, &observed, Instant::now()), []);
        assert!(!removals_are_done(&desired, &observed));
        observed.stored = Some(BTreeSet::new());
        assert!(removals_are_done(&desired, &observed));
    }

    #[test]
    fn a_new_generation_is_prepared_beside_the_old_one_and_then_replaces_it_in_place() {
        let now = Instant::now();
        let (old, new) = (assignment("d/g/0", 1, 1), assignment("d/g/0", 2, 1));
        let mut observed = Observed { replicas: [running(&old)].into(), ..Observed::default() };
        let desired = document(vec![new.clone()]);
        assert_eq!(plan_steps(&desired, &observed, now), [Step::Prepare { module: ModuleKey::of(&new) }]);
        observed.modules.extend([ready(&new)]);
        assert_eq!(plan_steps(&desired, &observed, now), [Step::Upgrade { assignment: new }]);
    }

    #[test]
    fn a_generation_that_runs_the_same_thing_restarts_nothing() {
        let now = Instant::now();
        let old = assignment("d/g/0", 1, 1);
        let new = Assignment { generation: Generation(2), ..old.clone() };
        let observed = Observed { replicas: [running(&old)].into(), ..Observed::default() };
        let steps = plan_steps(&document(vec![new.clone()]), &observed, now);
        assert_eq!(steps, [Step::Adopt { assignment: new }]);
    }

    #[test]
    fn a_generation_that_keeps_another_past_replaces_the_old_one_in_place() {
        let now = Instant::now();
        let old = assignment("d/g/0", 1, 1);
        let history = Some(hvm_types::HistorySpec { records: Some(5), ..Default::default() });
        let retention = hvm_types::RetentionSpec { history, idempotency: None };
        let new = Assignment { generation: Generation(2), retention, ..old.clone() };
        let mut observed = Observed { replicas: [running(&old)].into(), ..Observed::default() };
        observed.modules.extend([ready(&new)]);
        let steps = plan_steps(&document(vec![new.clone()]), &observed, now);
        assert_eq!(steps, [Step::Upgrade { assignment: new }]);
    }

    #[test]
    fn a_new_epoch_closes_before_it_opens() {
        let now = Instant::now();
        let (old, new) = (assignment("d/g/0", 1, 1), assignment("d/g/0", 1, 2));
        let mut observed = Observed {
            replicas: [running(&old)].into(),
            modules: [ready(&new)].into(),
            ..Observed::default()
        };
        let desired = document(vec![new.clone()]);
        let steps = plan_steps(&desired, &observed, now);
        assert_eq!(steps, [Step::Close { replica: old.replica }]);
        apply(&mut observed, steps);
        assert_eq!(plan_steps(&desired, &observed, now), [Step::Open { assignment: new }]);
    }

    #[test]
    fn a_failed_step_waits_for_its_time_unless_something_else_is_wanted() {
        let now = Instant::now();
        let (old, new) = (assignment("d/g/0", 1, 1), assignment("d/g/0", 2, 1));
        let failure = Failure::again("no".to_owned(), 0, now);
        let retry_at = failure.retry_at;
        let there = ObservedReplica {
            running: Some(Running::of(&old)),
            failure: Some((Wanted::run(&new), failure)),
            ..ObservedReplica::default()
        };
        let third = assignment("d/g/0", 3, 1);
        let observed = Observed {
            replicas: [(old.replica.clone(), there)].into(),
            modules: [ready(&new), ready(&third)].into(),
            ..Observed::default()
        };
        let desired = document(vec![new.clone()]);
        assert_eq!(plan_steps(&desired, &observed, now), []);
        assert_eq!(next_retry(&observed, now), Some(retry_at));
        assert_eq!(
            next_retry(&observed, retry_at),
            None,
            "what is due is in the plan, or is not wanted any more"
        );
        assert_eq!(plan_steps(&desired, &observed, retry_at), [Step::Upgrade { assignment: new }]);
        let steps = plan_steps(&document(vec![third.clone()]), &observed, now);
        assert_eq!(steps, [Step::Upgrade { assignment: third }]);
    }

    #[test]
    fn a_module_that_could_not_be_prepared_is_tried_again_when_its_time_has_come() {
        let now = Instant::now();
        let new = assignment("d/g/0", 1, 1);
        let failure = Failure::again("unsigned".to_owned(), 0, now);
        let retry_at = failure.retry_at;
        let observed = Observed {
            modules: [(ModuleKey::of(&new), ModuleStatus::Failed(failure))].into(),
            ..Observed::default()
        };
        let desired = document(vec![new.clone()]);
        assert_eq!(plan_steps(&desired, &observed, now), []);
        let late = plan_steps(&desired, &observed, retry_at + Duration::from_millis(1));
        assert_eq!(late, [Step::Prepare { module: ModuleKey::of(&new) }]);
    }

    #[test]
    fn a_busy_replica_gets_no_second_step() {
        let now = Instant::now();
        let (old, new) = (assignment("d/g/0", 1, 1), assignment("d/g/1", 1, 1));
        let activity = Some(Activity::Closing);
        let busy = |running| ObservedReplica { running, activity, ..ObservedReplica::default() };
        let observed = Observed {
            replicas: [
                (old.replica.clone(), busy(Some(Running::of(&old)))),
                (new.replica.clone(), busy(None)),
            ]
            .into(),
            modules: [ready(&new)].into(),
            ..Observed::default()
        };
        let desired = document(vec![new]);
        assert_eq!(plan_steps(&desired, &observed, now), []);
        assert!(!removals_are_done(&desired, &observed), "the removal of d/g/0 is still under way");
    }

    #[test]
    fn what_the_hvm_gave_up_on_is_closed_and_opened_again() {
        let now = Instant::now();
        let new = assignment("d/g/0", 1, 1);
        let there = ObservedReplica {
            running: Some(Running::of(&new)),
            broken: Some(StepFailure { reason: "damaged".to_owned(), fenced_by: None }),
            ..ObservedReplica::default()
        };
        let mut observed = Observed {
            replicas: [(new.replica.clone(), there)].into(),
            modules: [ready(&new)].into(),
            ..Observed::default()
        };
        let desired = document(vec![new.clone()]);
        let steps = plan_steps(&desired, &observed, now);
        assert_eq!(steps, [Step::Close { replica: new.replica.clone() }]);
        apply(&mut observed, steps);
        assert_eq!(plan_steps(&desired, &observed, now), [Step::Open { assignment: new }]);
    }
}
