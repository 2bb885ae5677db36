//! What this host has and does: written by the reconcile loop and its steps, read by reports and the API.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use hvm_runtime::{Module, PartitionStatus};
use hvm_types::{Capability, HostDocument, ReplicaId, ReplicaReport, ReplicaState};
use tokio::sync::watch;

use super::backoff::Failure;
use super::observed::{
    Activity, ModuleKey, ModuleStatus, Observed, ObservedReplica, Running, StepFailure, Wanted,
};
use super::plan::{self, Step};
use super::report;

/// A component that can be run, and the capabilities its package requested.
#[derive(Debug, Clone)]
pub(crate) struct PreparedModule {
    pub(crate) module: Module,
    pub(crate) requested: Vec<Capability>,
}

/// What a finished step leaves behind.
#[derive(Debug)]
pub(crate) enum Done {
    Replica,
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
    /// What the document asks of each replica that it names.
    asked: BTreeMap<ReplicaId, Wanted>,
    observed: Observed,
    prepared: BTreeMap<ModuleKey, PreparedModule>,
    /// How often in a row the preparation of a component failed.
    module_attempts: BTreeMap<ModuleKey, u32>,
    /// Version of the newest document all of whose removals and purges are done.
    applied: u64,
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
        let purged = document.purge.iter().map(|replica| (replica.clone(), Wanted::Gone));
        let assigned = document.assignments.iter().map(|a| (a.replica.clone(), Wanted::run(a)));
        inner.asked = purged.chain(assigned).collect();
        inner.document = document;
        let Inner { asked, observed, .. } = &mut *inner;
        observed.replicas.retain(|replica, there| is_worth_keeping(there, asked.contains_key(replica)));
        drop(inner);
        self.changed();
    }

    /// Takes note of what the HVM says, and which replicas have durable state here.
    pub(crate) fn observe(&self, statuses: &[PartitionStatus], stored: Option<BTreeSet<ReplicaId>>) {
        let mut inner = self.lock();
        for status in statuses {
            if let Some(there) = inner.observed.replicas.get_mut(&status.id) {
                there.broken = broken(&status.state);
            }
        }
        if stored.is_some() {
            inner.observed.stored = stored;
        }
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
        drop(inner);
        self.changed();
    }

    /// A component's preparation goes on.
    pub(crate) fn progress(&self, module: &ModuleKey, status: ModuleStatus) {
        self.lock().observed.modules.insert(module.clone(), status);
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
                let running = Some(Running::of(assignment));
                inner.finish_replica(&assignment.replica, Wanted::run(assignment), running, result, now);
            }
        }
        drop(inner);
        self.changed();
    }

    /// A component that is ready.
    pub(crate) fn prepared(&self, module: &ModuleKey) -> Option<PreparedModule> {
        self.lock().prepared.get(module).cloned()
    }

    /// The replicas that requests may be passed to.
    pub(crate) fn serving(&self) -> Vec<ReplicaId> {
        let inner = self.lock();
        let serving = inner.observed.replicas.iter().filter(|(_, there)| there.takes_requests());
        serving.map(|(replica, _)| replica.clone()).collect()
    }

    /// Whether a replica has durable state; `None` where it does not run.
    pub(crate) fn is_stateful(&self, replica: &ReplicaId) -> Option<bool> {
        Some(self.lock().observed.replicas.get(replica)?.running.as_ref()?.stateful)
    }

    /// What runs, starts, fails or goes, given the states that the HVM observes.
    pub(crate) fn report(&self, statuses: &[PartitionStatus]) -> (Vec<ReplicaReport>, u64) {
        let inner = self.lock();
        let states = statuses.iter().map(|status| (&status.id, &status.state)).collect();
        (report::report(&inner.document, &inner.observed, &states), inner.applied)
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
    fn wanted(&self, replica: &ReplicaId) -> Wanted {
        self.asked.get(replica).copied().unwrap_or(Wanted::Gone)
    }

    fn finish_module(&mut self, module: &ModuleKey, result: Result<Done, StepFailure>, now: Instant) {
        let status = match result {
            Ok(Done::Module(prepared)) => {
                self.prepared.insert(module.clone(), prepared);
                self.module_attempts.remove(module);
                ModuleStatus::Ready
            }
            Ok(Done::Replica) => return,
            Err(failure) => {
                let earlier = self.module_attempts.get(module).copied().unwrap_or(0);
                let failure = Failure::again(failure.reason, earlier, now);
                self.module_attempts.insert(module.clone(), failure.attempts);
                ModuleStatus::Failed(failure)
            }
        };
        self.observed.modules.insert(module.clone(), status);
    }

    fn finish_replica(
        &mut self,
        replica: &ReplicaId,
        wanted: Wanted,
        running: Option<Running>,
        result: Result<Done, StepFailure>,
        now: Instant,
    ) {
        let there = self.observed.replicas.entry(replica.clone()).or_default();
        there.activity = None;
        match result {
            Ok(_) => {
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
    use hvm_types::{Assignment, ByteSize, Digest, Epoch, Generation, Sequence};

    use super::*;

    fn assignment() -> Assignment {
        let task = r#"{"name": "t", "driver": "app-partition", "config": {"package": "web"}}"#;
        Assignment {
            replica: "d/g/0".parse().expect("a replica"),
            generation: Generation(1),
            epoch: Epoch(1),
            image: Digest::of(b"image"),
            stateful: true,
            task: serde_json::from_str(task).expect("a task"),
        }
    }

    fn status(state: ReplicaState) -> PartitionStatus {
        PartitionStatus {
            id: assignment().replica,
            state,
            generation: Generation(1),
            epoch: Epoch(1),
            sequence: Sequence(0),
            mailbox: 0,
            instances: 0,
            memory: ByteSize(0),
            stored: ByteSize(0),
            doing: Vec::new(),
        }
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
        assert_eq!(registry.serving().len(), 1);
        registry.observe(&[status(ReplicaState::Failed { reason: "damaged".to_owned() })], None);
        assert_eq!(registry.serving().len(), 0);
        let close = Step::Close { replica: assignment().replica };
        assert_eq!(registry.plan(now), std::slice::from_ref(&close));
        registry.begin(&close);
        registry.finish(&close, Ok(Done::Replica), now);
        assert_eq!(registry.plan(now), []);
        let (reports, _) = registry.report(&[]);
        assert_eq!(reports[0].state, ReplicaState::Failed { reason: "damaged".to_owned() });
        let retry = registry.next_retry(now).expect("a retry");
        assert_eq!(registry.plan(retry), [Step::Open { assignment: assignment() }]);
    }

    #[test]
    fn what_is_gone_is_not_reported_and_the_document_is_applied() {
        let now = Instant::now();
        let registry = opened(now);
        registry.set_document(Arc::new(HostDocument { version: 2, ..HostDocument::default() }));
        let close = Step::Close { replica: assignment().replica };
        assert_eq!(registry.plan(now), std::slice::from_ref(&close));
        registry.begin(&close);
        let (reports, applied) = registry.report(&[status(ReplicaState::Draining)]);
        assert_eq!((reports[0].state.clone(), applied), (ReplicaState::Draining, 1));
        registry.finish(&close, Ok(Done::Replica), now);
        assert_eq!(registry.plan(now), []);
        assert_eq!(registry.report(&[]), (Vec::new(), 2));
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
        assert_eq!(registry.report(&[]), (Vec::new(), 2));
    }
}
