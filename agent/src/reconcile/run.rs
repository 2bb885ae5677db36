//! The reconcile loop: look, plan, do, again on every change. It is the only one that changes what runs.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hvm_types::{HostDocument, HostId, ReplicaId};
use tokio::sync::watch;
use tokio::task::{self, JoinHandle, JoinSet};

use super::document::DocumentStore;
use super::execute::Executor;
use super::observed::StepFailure;
use super::plan::Step;
use super::registry::Done;
use super::schedule::{Need, Schedule};
use crate::ingress::{Router, Serving};

/// Of the loop's time, telling the ingress which replicas take requests takes at most about one part of this.
const PUBLISH_COSTS: u32 = 10;

/// How long steps under way may take when the agent stops.
const GRACE: Duration = Duration::from_secs(5);

/// How long an agent that starts waits for the scheduler's word before it goes by the kept document, where other hosts
/// reach the state of its partitions.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the loop needs.
pub(crate) struct Reconcile {
    pub(crate) host: HostId,
    pub(crate) executor: Executor,
    pub(crate) documents: watch::Receiver<Option<Arc<HostDocument>>>,
    /// Whether the document in `documents` came from the scheduler since the agent started.
    pub(crate) confirmed: watch::Receiver<bool>,
    /// Whether other hosts reach the state of the partitions here.
    pub(crate) shares_state: bool,
    pub(crate) store: DocumentStore,
    pub(crate) serving: watch::Sender<Arc<Serving>>,
}

/// The running loop.
pub(crate) struct ReconcileHandle {
    stop: watch::Sender<bool>,
    join: JoinHandle<()>,
}

impl ReconcileHandle {
    /// Ends the loop. Steps under way are finished first, unless they take too long.
    pub(crate) async fn stop(self) {
        self.stop.send_replace(true);
        if let Err(error) = self.join.await
            && error.is_panic()
        {
            tracing::error!("the reconcile loop panicked");
        }
    }
}

type Finished = Result<(task::Id, Result<Done, StepFailure>), task::JoinError>;

/// The loop's own state: the steps under way.
struct Loop {
    reconcile: Reconcile,
    /// Whether partitions are held back that may have been deleted while this host was away.
    holds_back: bool,
    /// `None` until there is a document.
    router: Option<Arc<Router>>,
    steps: JoinSet<Result<Done, StepFailure>>,
    under_way: HashMap<task::Id, Step>,
    schedule: Schedule,
    retry: Option<Instant>,
    /// When the ingress is to be told of what changed; `None` where nothing did.
    publish_at: Option<Instant>,
    published_at: Instant,
    publish_cost: Duration,
}

impl Reconcile {
    /// Starts the loop with the document that is in the channel now, and takes every newer one.
    pub(crate) fn start(self) -> ReconcileHandle {
        let (stop, stopped) = watch::channel(false);
        let running = Loop {
            reconcile: self,
            holds_back: false,
            router: None,
            steps: JoinSet::new(),
            under_way: HashMap::new(),
            schedule: Schedule::new(Instant::now()),
            retry: None,
            publish_at: None,
            published_at: Instant::now(),
            publish_cost: Duration::ZERO,
        };
        ReconcileHandle { stop, join: tokio::spawn(running.run(stopped)) }
    }
}

impl Loop {
    async fn run(mut self, mut stopped: watch::Receiver<bool>) {
        let mut changes = self.reconcile.executor.hvm.state_changes();
        tokio::select! {
            () = self.await_word() => {}
            _ = stopped.changed() => {}
        }
        while !*stopped.borrow() {
            if self.schedule.next_plan(self.retry) <= Instant::now() {
                self.plan().await;
            }
            self.begin_steps();
            if self.publish_at.is_some_and(|at| at <= Instant::now()) {
                self.publish();
            }
            let next_plan = self.schedule.next_plan(self.retry);
            let next = self.publish_at.map_or(next_plan, |at| at.min(next_plan));
            tokio::select! {
                finished = self.steps.join_next_with_id(), if !self.steps.is_empty() => self.finish(finished),
                changed = self.reconcile.documents.changed() => match changed {
                    Ok(()) => self.take_document(true).await,
                    Err(_) => break,
                },
                confirmed = self.reconcile.confirmed.changed(), if self.holds_back => {
                    self.holds_back = false;
                    // An error means that the agent is stopping.
                    if confirmed.is_ok() {
                        self.take_document(true).await;
                    }
                }
                changed = changes.next() => if self.reconcile.executor.registry.observe(changed) {
                    self.schedule.needs_plan(Need::Changed);
                    self.has_changed();
                },
                _ = stopped.changed() => {}
                () = tokio::time::sleep_until(next.into()) => {}
            }
            while let Some(finished) = self.steps.try_join_next_with_id() {
                self.finish(Some(finished));
            }
            if self.steps.is_empty()
                && let Err(error) = self.reconcile.executor.before.settle().await
            {
                let reason = crate::failure_text::with_causes(&error);
                tracing::warn!(reason, "notes of what was replaced could not be removed");
            }
        }
        let ending = async {
            while let Some(finished) = self.steps.join_next_with_id().await {
                self.finish(Some(finished));
            }
        };
        if tokio::time::timeout(GRACE, ending).await.is_err() {
            tracing::warn!("steps that took longer than {GRACE:?} are broken off");
        }
    }

    /// Takes the kept document. Where others reach the state of its partitions, these may own them by now, or have
    /// deleted them: the scheduler knows. Without it, what is still in the store is opened, and no newer owner is
    /// disturbed by that: the store refuses older epochs.
    async fn await_word(&mut self) {
        let mut is_confirmed = false;
        if self.reconcile.shares_state && self.reconcile.documents.borrow().is_some() {
            let confirmed = self.reconcile.confirmed.wait_for(|confirmed| *confirmed);
            is_confirmed = matches!(tokio::time::timeout(PATIENCE, confirmed).await, Ok(Ok(_)));
            self.holds_back = !is_confirmed;
        }
        self.take_document(is_confirmed).await;
    }

    /// The document without partitions that are not in the store.
    async fn without_deleted(&self, document: &HostDocument) -> Arc<HostDocument> {
        let stored = self.stored().await.unwrap_or_default();
        let mut document = document.clone();
        document
            .assignments
            .retain(|assignment| !assignment.stateful || stored.contains(&assignment.replica));
        Arc::new(document)
    }

    async fn take_document(&mut self, keep: bool) {
        let Some(mut document) = self.reconcile.documents.borrow_and_update().clone() else { return };
        if keep {
            let executor = &self.reconcile.executor;
            let replaced = executor.registry.replaced_by(&document);
            let is_wanted = |replica: &ReplicaId| {
                document.assignments.binary_search_by_key(&replica, |wanted| &wanted.replica).is_ok()
            };
            if let Err(error) = executor.before.note(replaced, is_wanted).await {
                let reason = crate::failure_text::with_causes(&error);
                tracing::error!(reason, "what is replaced could not be kept for a restart");
            }
            let (store, kept) = (self.reconcile.store.clone(), Arc::clone(&document));
            match tokio::task::spawn_blocking(move || store.save(&kept)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    let reason = crate::failure_text::with_causes(&error);
                    tracing::error!(
                        reason,
                        "the host document is applied but could not be kept for a restart"
                    );
                }
                Err(error) => tracing::error!(%error, "keeping the host document was broken off"),
            }
        }
        if self.holds_back {
            tracing::warn!(
                "the scheduler says nothing: partitions are opened only where their state is in the store"
            );
            document = self.without_deleted(&document).await;
        }
        self.router = Some(Arc::new(Router::compile(&document.routing, &self.reconcile.host)));
        self.reconcile.executor.registry.set_document(document);
        self.schedule.needs_plan(Need::Changed);
        self.has_changed();
    }

    async fn plan(&mut self) {
        let began = Instant::now();
        let registry = &self.reconcile.executor.registry;
        if registry.has_purges()
            && let Some(stored) = self.stored().await
        {
            registry.observe_stored(stored);
        }
        let steps = registry.plan(Instant::now());
        self.retry = registry.next_retry(Instant::now());
        self.schedule.replace(steps, began, Instant::now());
    }

    /// The replicas with durable state here; `None` where they can't be listed now.
    async fn stored(&self) -> Option<BTreeSet<ReplicaId>> {
        let state = Arc::clone(&self.reconcile.executor.state);
        match tokio::task::spawn_blocking(move || state.partitions()).await.ok()? {
            Ok(partitions) => Some(partitions.into_iter().map(|partition| partition.id).collect()),
            Err(error) => {
                let reason = crate::failure_text::with_causes(&error);
                tracing::warn!(reason, "durable state can't be listed, so nothing is purged");
                None
            }
        }
    }

    fn begin_steps(&mut self) {
        let mut begun = Vec::new();
        while let Some(step) = self.schedule.begin() {
            self.reconcile.executor.registry.begin(&step);
            begun.push(step);
        }
        if begun.iter().any(|step| matches!(step, Step::Close { .. })) {
            // The ingress passes no more requests to what is about to be closed.
            self.publish();
        }
        for step in begun {
            let (executor, done) = (self.reconcile.executor.clone(), step.clone());
            let task = self.steps.spawn(async move { executor.execute(&done).await });
            self.under_way.insert(task.id(), step);
        }
    }

    fn finish(&mut self, finished: Option<Finished>) {
        let (id, result) = match finished {
            Some(Ok((id, result))) => (id, result),
            // The replica must not stay busy forever because of a fault of this program.
            Some(Err(error)) => {
                let reason = "a fault of the agent broke the step off; see its log".to_owned();
                (error.id(), Err(StepFailure { reason, fenced_by: None }))
            }
            None => return,
        };
        let step = self.under_way.remove(&id).expect("every spawned step is under way");
        self.schedule.end(&step, result.is_ok());
        self.reconcile.executor.registry.finish(&step, result, Instant::now());
        self.has_changed();
    }

    /// Other replicas take requests than the ingress was told.
    fn has_changed(&mut self) {
        self.publish_at.get_or_insert(self.published_at + self.publish_cost * PUBLISH_COSTS);
    }

    /// Tells the ingress what routes there are and which replicas take requests.
    fn publish(&mut self) {
        let began = Instant::now();
        self.publish_at = None;
        let Some(router) = self.router.clone() else { return };
        let ready = self.reconcile.executor.registry.serving();
        self.reconcile.serving.send_if_modified(|serving| {
            let next = Serving::new(router, ready);
            let is_new = !serving.is_same(&next);
            if is_new {
                *serving = Arc::new(next);
            }
            is_new
        });
        self.published_at = Instant::now();
        self.publish_cost = self.published_at.duration_since(began);
    }
}
