//! What this host has and does: written by the reconcile loop and its steps, read by reports and the API.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use hvm_runtime::Module;
use hvm_types::{
    Assignment, Capability, Digest, HostDocument, ReplicaId, ReplicaReport, ReplicaState, StateSchema,
};
use tokio::sync::watch;

use super::backoff::Failure;
use super::before::Replaced;
use super::observed::{
    Activity, ModuleKey, ModuleStatus, Observed, ObservedReplica, Running, StepFailure, Wanted,
};
use super::plan::{self, Step};
use super::report;
use super::unreported::{HostReport, Unreported};
use crate::ingress::ReadySet;

/// A component that can be run, the capabilities its package requested, and the layouts of state it knows.
#[derive(Debug, Clone)]
pub(crate) struct PreparedModule {
    pub(crate) module: Module,
    pub(crate) requested: Vec<Capability>,
    pub(crate) schema: StateSchema,
}

/// What a finished step leaves behind.
#[derive(Debug)]
pub(crate) enum Done {
    Replica,
    /// Not what was asked for, because of this, but what ran of the replica before.
    Before(Box<Assignment>, StepFailure),
    Module(PreparedModule),
}

/// What is there, what should be, and what is under way.
#[derive(Debug)]
pub(crate) struct Registry {
    inner: Mutex<Inner>,
    changes: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Inner {
    document: Arc<HostDocument>,
    /// What the document asks of each replica that it names: the place of its assignment, or nothing of it.
    asked: BTreeMap<ReplicaId, Option<usize>>,
    observed: Observed,
    prepared: BTreeMap<ModuleKey, PreparedModule>,
    /// How often in a row the preparation of a component failed.
    module_attempts: BTreeMap<ModuleKey, u32>,
    /// Version of the newest document all of whose removals and purges are done.
    applied: u64,
    unreported: Unreported,
}

impl Registry {
    pub(crate) fn new() -> Self {
        Self { inner: Mutex::default(), changes: watch::Sender::new(0) }
    }

    /// Changes whenever a report would differ.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Takes the newest document. What only older ones needed is forgotten.
    pub(crate) fn set_document(&self, document: Arc<HostDocument>) {
        let mut inner = self.lock();
        let needed: BTreeSet<ModuleKey> = document.assignments.iter().map(ModuleKey::of).collect();
        let is_idle = |status: &ModuleStatus| matches!(status, ModuleStatus::Ready | ModuleStatus::Failed(_));
        inner.observed.modules.retain(|key, status| needed.contains(key) || !is_idle(status));
        inner.prepared.retain(|key, _| needed.contains(key));
        inner.module_attempts.retain(|key, _| needed.contains(key));
        inner.observed.stored = None;
        let purged = document.purge.iter().map(|replica| (replica.clone(), None));
        let assigned = document.assignments.iter().enumerate().map(|(at, a)| (a.replica.clone(), Some(at)));
        inner.asked = purged.chain(assigned).collect();
        inner.document = document;
        inner.unreported = Unreported::Everything;
        let Inner { asked, observed, .. } = &mut *inner;
        observed.replicas.retain(|replica, there| is_worth_keeping(there, asked.contains_key(replica)));
        drop(inner);
        self.changed();
    }

    /// Takes note of the states that the HVM says have changed. True where it gave up on a replica.
    pub(crate) fn observe(&self, changes: Vec<(ReplicaId, ReplicaState)>) -> bool {
        let mut inner = self.lock();
        let Inner { observed, unreported, .. } = &mut *inner;
        let mut gave_up = false;
        for (replica, state) in changes {
            if let Some(there) = observed.replicas.get_mut(&replica) {
                there.broken = broken(&state);
                gave_up |= there.broken.is_some();
                there.seen = Some(state);
                unreported.add(&replica);
            }
        }
        drop(inner);
        self.changed();
        gave_up
    }

    /// Takes note of which replicas have durable state here.
    pub(crate) fn observe_stored(&self, stored: BTreeSet<ReplicaId>) {
        self.lock().observed.stored = Some(stored);
    }

    /// The next steps. Remembers the document as applied once all its removals are done.
    pub(crate) fn plan(&self, now: Instant) -> Vec<Step> {
        let mut inner = self.lock();
        let steps = plan::plan_steps(&inner.document, &inner.observed, now);
        if inner.applied != inner.document.version
            && plan::removals_are_done(&inner.document, &inner.observed)
        {
            inner.applied = inner.document.version;
            drop(inner);
            self.changed();
        }
        steps
    }

    /// When to plan again if nothing happens before.
    pub(crate) fn next_retry(&self, now: Instant) -> Option<Instant> {
        plan::next_retry(&self.lock().observed, now)
    }

    /// Whether the document asks for purges that are not done, so that the durable state must be listed.
    pub(crate) fn has_purges(&self) -> bool {
        let inner = self.lock();
        !inner.document.purge.is_empty() && inner.applied != inner.document.version
    }

    /// A step begins.
    pub(crate) fn begin(&self, step: &Step) {
        let mut inner = self.lock();
        let (replica, activity) = match step {
            Step::Prepare { module } => {
                inner.observed.modules.insert(module.clone(), ModuleStatus::Pulling);
                inner.unreported = Unreported::Everything;
                drop(inner);
                return self.changed();
            }
            Step::Close { replica } => (replica, Activity::Closing),
            Step::Purge { replica } => (replica, Activity::Purging),
            Step::Open { assignment } => (&assignment.replica, Activity::Opening),
            Step::Upgrade { assignment } | Step::Adopt { assignment } => {
                (&assignment.replica, Activity::Upgrading)
            }
        };
        inner.observed.replicas.entry(replica.clone()).or_default().activity = Some(activity);
        inner.unreported.add(replica);
        drop(inner);
        self.changed();
    }

    /// A component's preparation goes on.
    pub(crate) fn progress(&self, module: &ModuleKey, status: ModuleStatus) {
        let mut inner = self.lock();
        inner.observed.modules.insert(module.clone(), status);
        inner.unreported = Unreported::Everything;
        drop(inner);
        self.changed();
    }

    /// A step ended.
    pub(crate) fn finish(&self, step: &Step, result: Result<Done, StepFailure>, now: Instant) {
        let mut inner = self.lock();
        match step {
            Step::Prepare { module } => inner.finish_module(module, result, now),
            Step::Close { replica } => {
                let wanted = inner.wanted(replica);
                let broken = inner.observed.replicas.get_mut(replica).and_then(|there| there.broken.take());
                inner.finish_replica(replica, wanted, None, result, now);
                // What broke is not opened again at once: it might break again at once.
                if let (Some(broken), Wanted::Run { .. }) = (broken, wanted) {
                    inner.note_failure(replica, wanted, broken, now);
                }
            }
            Step::Purge { replica } => {
                if let (Ok(_), Some(stored)) = (&result, &mut inner.observed.stored) {
                    stored.remove(replica);
                }
                inner.finish_replica(replica, Wanted::Gone, None, result, now);
            }
            Step::Adopt { assignment } | Step::Upgrade { assignment } | Step::Open { assignment } => {
                let (replica, wanted) = (&assignment.replica, Wanted::run(assignment));
                match result {
                    Ok(Done::Before(before, failure)) => {
                        let running = Some(Running::of(&before));
                        inner.finish_replica(replica, wanted, running, Ok(Done::Replica), now);
                        inner.note_failure(replica, wanted, failure, now);
                    }
                    result => {
                        let running = Some(Running::of(assignment));
                        inner.finish_replica(replica, wanted, running, result, now);
                    }
                }
            }
        }
        drop(inner);
        self.changed();
    }

    /// What runs, or was to, of the partitions for which a document names another image.
    pub(crate) fn replaced_by(&self, document: &HostDocument) -> Vec<Replaced> {
        let inner = self.lock();
        let stateful = document.assignments.iter().filter(|assignment| assignment.stateful);
        let replaced = stateful.filter_map(|new| {
            let there = inner.observed.replicas.get(&new.replica);
            let replaced = match there.and_then(|there| there.running.as_ref()) {
                Some(running) => Replaced { assignment: running.assignment(&new.replica), runs: true },
                None => Replaced { assignment: inner.assignment(&new.replica)?.clone(), runs: false },
            };
            (replaced.assignment.image != new.image).then_some(replaced)
        });
        replaced.collect()
    }

    /// A component that is ready.
    pub(crate) fn prepared(&self, module: &ModuleKey) -> Option<PreparedModule> {
        self.lock().prepared.get(module).cloned()
    }

    /// The replicas that requests may be passed to.
    pub(crate) fn serving(&self) -> ReadySet {
        let inner = self.lock();
        let serving = inner.observed.replicas.iter().filter(|(_, there)| there.takes_requests());
        serving.map(|(replica, _)| replica).collect()
    }

    /// The image that runs as a replica, or that is to.
    pub(crate) fn image(&self, replica: &ReplicaId) -> Option<Digest> {
        let inner = self.lock();
        let running = inner.observed.replicas.get(replica).and_then(|there| there.running.as_ref());
        running.map(|running| running.image).or_else(|| Some(inner.assignment(replica)?.image))
    }

    /// What runs, starts, fails or goes.
    pub(crate) fn replicas(&self) -> Vec<ReplicaReport> {
        let inner = self.lock();
        report::report(&inner.document, &inner.observed)
    }

    /// What the scheduler is to be told: what changed since this was last called, or everything.
    pub(crate) fn report(&self, everything: bool) -> HostReport {
        let mut inner = self.lock();
        let applied = inner.applied;
        match std::mem::take(&mut inner.unreported) {
            Unreported::Some(changed) if !everything => {
                let mut report = HostReport { applied, ..HostReport::default() };
                for replica in changed {
                    match report::report_one(&replica, inner.assignment(&replica), &inner.observed) {
                        Some(one) => report.replicas.push(one),
                        None => report.gone.push(replica),
                    }
                }
                report
            }
            _ => {
                let replicas = report::report(&inner.document, &inner.observed);
                HostReport { is_whole: true, replicas, gone: Vec::new(), applied }
            }
        }
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every method leaves the content whole, so that a panic elsewhere does not matter here.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn assignment(&self, replica: &ReplicaId) -> Option<&Assignment> {
        self.document.assignments.get((*self.asked.get(replica)?)?)
    }

    fn wanted(&self, replica: &ReplicaId) -> Wanted {
        self.assignment(replica).map_or(Wanted::Gone, Wanted::run)
    }

    fn finish_module(&mut self, module: &ModuleKey, result: Result<Done, StepFailure>, now: Instant) {
        let status = match result {
            Ok(Done::Module(prepared)) => {
                self.prepared.insert(module.clone(), prepared);
                self.module_attempts.remove(module);
                ModuleStatus::Ready
            }
            Ok(Done::Replica | Done::Before(..)) => return,
            Err(failure) => {
                let earlier = self.module_attempts.get(module).copied().unwrap_or(0);
                let failure = Failure::again(failure.reason, earlier, now);
                self.module_attempts.insert(module.clone(), failure.attempts);
                ModuleStatus::Failed(failure)
            }
        };
        self.observed.modules.insert(module.clone(), status);
        self.unreported = Unreported::Everything;
    }

    fn finish_replica(
        &mut self,
        replica: &ReplicaId,
        wanted: Wanted,
        running: Option<Running>,
        result: Result<Done, StepFailure>,
        now: Instant,
    ) {
        self.unreported.add(replica);
        let there = self.observed.replicas.entry(replica.clone()).or_default();
        there.activity = None;
        match result {
            Ok(_) => {
                if running.is_none() {
                    there.seen = None;
                }
                there.running = running;
                there.broken = None;
                there.failure = None;
                there.fenced = None;
            }
            Err(failure) => self.note_failure(replica, wanted, failure, now),
        }
        self.forget_failure(replica);
    }

    fn note_failure(&mut self, replica: &ReplicaId, wanted: Wanted, failure: StepFailure, now: Instant) {
        let there = self.observed.replicas.entry(replica.clone()).or_default();
        let earlier = match &there.failure {
            Some((tried, failure)) if *tried == wanted => failure.attempts,
            _ => 0,
        };
        there.fenced = failure.fenced_by;
        there.failure = Some((wanted, Failure::again(failure.reason, earlier, now)));
    }

    /// A replica of which nothing is here, and that is not wanted here, is gone with its failures.
    fn forget_failure(&mut self, replica: &ReplicaId) {
        let is_asked = self.asked.contains_key(replica);
        if self.observed.replicas.get(replica).is_some_and(|there| !is_worth_keeping(there, is_asked)) {
            self.observed.replicas.remove(replica);
        }
    }
}

fn is_worth_keeping(there: &ObservedReplica, is_asked: bool) -> bool {
    there.running.is_some() || there.is_busy() || (there.failure.is_some() && is_asked)
}

/// Why the HVM gave up on a partition, where it did.
fn broken(state: &ReplicaState) -> Option<StepFailure> {
    match state {
        ReplicaState::Failed { reason } => Some(StepFailure { reason: reason.clone(), fenced_by: None }),
        ReplicaState::Fenced { epoch } => {
            Some(StepFailure { reason: state.to_string(), fenced_by: Some(*epoch) })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use hvm_types::{Epoch, Generation};

    use super::*;

    fn assignment() -> Assignment {
        let task = r#"{"name": "t", "driver": "app-partition", "config": {"package": "web"}}"#;
        Assignment {
            replica: "d/g/0".parse().expect("a replica"),
            generation: Generation(1),
            epoch: Epoch(1),
            image: Digest::of(b"image"),
            stateful: true,
            retention: hvm_types::RetentionSpec::default(),
            task: serde_json::from_str(task).map(Arc::new).expect("a task"),
        }
    }

    /// What the HVM says when the replica changed its state.
    fn change(state: ReplicaState) -> Vec<(ReplicaId, ReplicaState)> {
        vec![(assignment().replica, state)]
    }

    /// A registry whose one replica was opened.
    fn opened(now: Instant) -> Registry {
        let registry = Registry::new();
        let assignments = vec![assignment()];
        registry.set_document(Arc::new(HostDocument { assignments, version: 1, ..HostDocument::default() }));
        registry.lock().observed.modules.insert(ModuleKey::of(&assignment()), ModuleStatus::Ready);
        let open = Step::Open { assignment: assignment() };
        assert_eq!(registry.plan(now), std::slice::from_ref(&open));
        registry.begin(&open);
        assert_eq!(registry.plan(now), []);
        registry.finish(&open, Ok(Done::Replica), now);
        registry
    }

    #[test]
    fn what_broke_is_closed_reported_and_opened_again_after_a_while() {
        let now = Instant::now();
        let registry = opened(now);
        assert_eq!(registry.serving(), [&assignment().replica].into_iter().collect());
        assert!(registry.observe(change(ReplicaState::Failed { reason: "damaged".to_owned() })));
        assert_eq!(registry.serving(), ReadySet::default());
        let close = Step::Close { replica: assignment().replica };
        assert_eq!(registry.plan(now), std::slice::from_ref(&close));
        registry.begin(&close);
        registry.finish(&close, Ok(Done::Replica), now);
        assert_eq!(registry.plan(now), []);
        assert_eq!(registry.replicas()[0].state, ReplicaState::Failed { reason: "damaged".to_owned() });
        let retry = registry.next_retry(now).expect("a retry");
        assert_eq!(registry.plan(retry), [Step::Open { assignment: assignment() }]);
    }

    #[test]
    fn what_ran_before_serves_while_its_migration_fails_and_is_upgraded_after_a_while() {
        let now = Instant::now();
        let registry = Registry::new();
        let new = Assignment { generation: Generation(2), image: Digest::of(b"new"), ..assignment() };
        let assignments = vec![new.clone()];
        registry.set_document(Arc::new(HostDocument { assignments, version: 1, ..HostDocument::default() }));
        registry.lock().observed.modules.insert(ModuleKey::of(&new), ModuleStatus::Ready);
        let open = Step::Open { assignment: new.clone() };
        assert_eq!(registry.plan(now), std::slice::from_ref(&open));
        registry.begin(&open);
        let failure = StepFailure { reason: "its migration failed".to_owned(), fenced_by: None };
        registry.finish(&open, Ok(Done::Before(Box::new(assignment()), failure)), now);
        assert_eq!(registry.serving(), [&new.replica].into_iter().collect());
        let failed =
            Some((Generation(2), ReplicaState::Failed { reason: "its migration failed".to_owned() }));
        let report = || registry.replicas().remove(0);
        assert_eq!((report().generation, report().next), (Generation(1), failed.clone()));
        assert_eq!(registry.plan(now), []);

        let upgrade = Step::Upgrade { assignment: new };
        assert_eq!(registry.plan(registry.next_retry(now).expect("a retry")), std::slice::from_ref(&upgrade));
        registry.begin(&upgrade);
        assert_eq!(report().next, failed, "it has failed until it succeeds");
        registry.finish(&upgrade, Ok(Done::Replica), now);
        assert_eq!((report().generation, report().next), (Generation(2), None));
    }

    #[test]
    fn what_a_document_replaces_is_what_runs_or_was_to() {
        let now = Instant::now();
        let registry = opened(now);
        let with = |image: &[u8], generation| HostDocument {
            assignments: vec![Assignment {
                generation: Generation(generation),
                image: Digest::of(image),
                ..assignment()
            }],
            ..HostDocument::default()
        };
        assert_eq!(registry.replaced_by(&with(b"image", 2)), []);
        let runs = Replaced { assignment: assignment(), runs: true };
        assert_eq!(registry.replaced_by(&with(b"second", 2)), std::slice::from_ref(&runs));
        registry.set_document(Arc::new(with(b"second", 2)));
        assert_eq!(registry.replaced_by(&with(b"third", 3)), [runs], "the second does not run");

        let registry = Registry::new();
        assert_eq!(registry.replaced_by(&with(b"image", 1)), [], "nothing was known of it");
        registry.set_document(Arc::new(with(b"image", 1)));
        let was_to = Replaced { assignment: assignment(), runs: false };
        assert_eq!(registry.replaced_by(&with(b"second", 2)), [was_to]);
    }

    #[test]
    fn what_is_gone_is_not_reported_and_the_document_is_applied() {
        let now = Instant::now();
        let registry = opened(now);
        registry.set_document(Arc::new(HostDocument { version: 2, ..HostDocument::default() }));
        let close = Step::Close { replica: assignment().replica };
        assert_eq!(registry.plan(now), std::slice::from_ref(&close));
        registry.begin(&close);
        let report = registry.report(false);
        assert_eq!((report.replicas[0].state.clone(), report.applied), (ReplicaState::Draining, 1));
        registry.finish(&close, Ok(Done::Replica), now);
        assert_eq!(registry.plan(now), []);
        let gone = vec![assignment().replica];
        assert_eq!(registry.report(false), HostReport { gone, applied: 2, ..HostReport::default() });
        assert_eq!(registry.report(false), HostReport { applied: 2, ..HostReport::default() });
    }

    #[test]
    fn a_report_speaks_of_what_changed_and_of_everything_when_asked() {
        let now = Instant::now();
        let registry = opened(now);
        let first = registry.report(false);
        assert!(first.is_whole && first.replicas.len() == 1, "a new document: {first:?}");
        let nothing = HostReport { applied: first.applied, ..HostReport::default() };
        assert_eq!(registry.report(false), nothing);
        assert!(!registry.observe(change(ReplicaState::Hibernated)));
        let changed = registry.report(false);
        assert!(!changed.is_whole && changed.replicas[0].state == ReplicaState::Hibernated, "{changed:?}");
        assert_eq!(registry.report(false), nothing);
        assert_eq!(registry.report(true).replicas, changed.replicas);
    }

    #[test]
    fn a_failed_start_of_what_is_not_wanted_any_more_is_forgotten() {
        let now = Instant::now();
        let registry = Registry::new();
        let assignments = vec![assignment()];
        registry.set_document(Arc::new(HostDocument { assignments, version: 1, ..HostDocument::default() }));
        let open = Step::Open { assignment: assignment() };
        registry.begin(&open);
        registry.set_document(Arc::new(HostDocument { version: 2, ..HostDocument::default() }));
        let failure = StepFailure { reason: "no".to_owned(), fenced_by: None };
        registry.finish(&open, Err(failure), now);
        assert_eq!(registry.plan(now), []);
        let nothing = HostReport { is_whole: true, applied: 2, ..HostReport::default() };
        assert_eq!(registry.report(true), nothing);
    }
}
