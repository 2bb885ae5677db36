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
use crate::ingress::{Router, Serving};

/// Components that are prepared at the same time: they want the disk and the processors for themselves.
const MAX_PREPARING: usize = 2;

/// Partitions that are opened or upgraded at the same time.
const MAX_STARTING: usize = 64;

/// Partitions that are closed or purged at the same time; apart from the others, because a partition may
/// need its whole deadline to finish what it has accepted.
const MAX_REMOVING: usize = 256;

/// How often the HVM is looked at when nothing else happens.
const LOOK_PERIOD: Duration = Duration::from_secs(1);

/// Longest pause between two rounds for the sake of their cost; see [`Loop::run`].
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// How long steps under way may take when the agent stops.
const GRACE: Duration = Duration::from_secs(5);

/// What the loop needs.
pub(crate) struct Reconcile {
    pub(crate) host: HostId,
    pub(crate) executor: Executor,
    pub(crate) documents: watch::Receiver<Option<Arc<HostDocument>>>,
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
    /// `None` until there is a document.
    router: Option<Arc<Router>>,
    steps: JoinSet<Result<Done, StepFailure>>,
    under_way: HashMap<task::Id, Step>,
    preparing: usize,
    starting: usize,
    removing: usize,
}

impl Reconcile {
    /// Starts the loop with the document that is in the channel now, and takes every newer one.
    pub(crate) fn start(self) -> ReconcileHandle {
        let (stop, stopped) = watch::channel(false);
        let running = Loop {
            reconcile: self,
            router: None,
            steps: JoinSet::new(),
            under_way: HashMap::new(),
            preparing: 0,
            starting: 0,
            removing: 0,
        };
        ReconcileHandle { stop, join: tokio::spawn(running.run(stopped)) }
    }
}

impl Loop {
    async fn run(mut self, mut stopped: watch::Receiver<bool>) {
        self.take_document(false).await;
        while !*stopped.borrow() {
            let began = Instant::now();
            self.observe().await;
            self.begin_steps();
            let now = Instant::now();
            let cost = now.duration_since(began);
            let retry = self.reconcile.executor.registry.next_retry(now);
            let wait = retry.map_or(LOOK_PERIOD, |at| at.saturating_duration_since(now).min(LOOK_PERIOD));
            tokio::select! {
                finished = self.steps.join_next_with_id(), if !self.steps.is_empty() => self.finish(finished),
                changed = self.reconcile.documents.changed() => match changed {
                    Ok(()) => self.take_document(true).await,
                    Err(_) => break,
                },
                _ = stopped.changed() => {}
                () = tokio::time::sleep(wait) => {}
            }
            // A round looks at every replica. Where there are many, the steps that end in the time of one round
            // are taken together, or each of thousands would have a round of its own.
            if !self.steps.is_empty() {
                tokio::time::sleep(cost.min(LONGEST_PAUSE)).await;
            }
            while let Some(finished) = self.steps.try_join_next_with_id() {
                self.finish(Some(finished));
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

    async fn take_document(&mut self, keep: bool) {
        let Some(document) = self.reconcile.documents.borrow_and_update().clone() else { return };
        if keep {
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
        self.router = Some(Arc::new(Router::compile(&document.routing, &self.reconcile.host)));
        self.reconcile.executor.registry.set_document(document);
    }

    async fn observe(&self) {
        let executor = &self.reconcile.executor;
        let stored = if executor.registry.has_purges() { self.stored().await } else { None };
        executor.registry.observe(&executor.hvm.observe(), stored);
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
        for step in self.reconcile.executor.registry.plan(Instant::now()) {
            let (under_way, most) = self.room(&step);
            if *under_way < most {
                *under_way += 1;
                self.reconcile.executor.registry.begin(&step);
                begun.push(step);
            }
        }
        // The ingress passes no more requests to what is about to be closed.
        self.publish();
        for step in begun {
            let (executor, done) = (self.reconcile.executor.clone(), step.clone());
            let task = self.steps.spawn(async move { executor.execute(&done).await });
            self.under_way.insert(task.id(), step);
        }
    }

    fn room(&mut self, step: &Step) -> (&mut usize, usize) {
        match step {
            Step::Prepare { .. } => (&mut self.preparing, MAX_PREPARING),
            Step::Close { .. } | Step::Purge { .. } => (&mut self.removing, MAX_REMOVING),
            Step::Open { .. } | Step::Upgrade { .. } | Step::Adopt { .. } => {
                (&mut self.starting, MAX_STARTING)
            }
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
        *self.room(&step).0 -= 1;
        self.reconcile.executor.registry.finish(&step, result, Instant::now());
    }

    /// Tells the ingress what routes there are and which replicas take requests.
    fn publish(&self) {
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
    }
}
