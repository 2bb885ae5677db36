//! What the ingress must know: the routes, and which replicas here take requests. Each worker keeps a
//! reference of its own and looks only whether there is a newer one.

use std::sync::Arc;
use std::time::Duration;

use hvm_types::ReplicaId;
use rustc_hash::FxHashSet;
use tokio::sync::watch;

use super::Router;

/// One state of the routes and replicas; it never changes.
#[derive(Debug, Default)]
pub(crate) struct Serving {
    /// `None` until there is a host document.
    router: Option<Arc<Router>>,
    ready: FxHashSet<ReplicaId>,
}

impl Serving {
    pub(crate) fn new(router: Arc<Router>, ready: Vec<ReplicaId>) -> Self {
        Self { router: Some(router), ready: ready.into_iter().collect() }
    }

    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let is_same_router = match (&self.router, &other.router) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (one, other) => one.is_none() && other.is_none(),
        };
        is_same_router && self.ready == other.ready
    }

    pub(crate) fn router(&self) -> Option<&Router> {
        self.router.as_deref()
    }

    pub(crate) fn is_ready(&self, replica: &ReplicaId) -> bool {
        self.ready.contains(replica)
    }
}

/// Waits until a replica takes requests, at most for `patience`. Whether it does now.
pub(crate) async fn wait_until_ready(
    mut serving: watch::Receiver<Arc<Serving>>,
    replica: &ReplicaId,
    patience: Duration,
) -> bool {
    let ready = serving.wait_for(|serving| serving.is_ready(replica));
    matches!(tokio::time::timeout(patience, ready).await, Ok(Ok(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_request_waits_for_its_replica_and_not_forever() {
        let replica: ReplicaId = "d/g/0".parse().expect("a replica");
        let (sender, receiver) = watch::channel(Arc::new(Serving::default()));
        assert!(!wait_until_ready(receiver.clone(), &replica, Duration::from_millis(10)).await);

        let waits = tokio::spawn({
            let replica = replica.clone();
            async move { wait_until_ready(receiver, &replica, Duration::from_secs(60)).await }
        });
        sender.send_replace(Arc::new(Serving::new(Arc::default(), vec![replica])));
        assert!(waits.await.expect("it ends"));
    }
}
