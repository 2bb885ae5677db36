//! What is done for a guest in tasks that are none of its partition's: wasmtime makes them for calls out. Their time is
//! charged to the partition; they are not held up, because what they wait for is other servers.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use hvm_types::ReplicaId;

use crate::worker::Local;

/// Work that is charged to a partition, as long as that is open.
pub(super) struct OnBehalf<T> {
    id: Arc<ReplicaId>,
    work: Pin<Box<dyn Future<Output = T> + Send>>,
}

impl<T> OnBehalf<T> {
    pub(super) fn of(id: &Arc<ReplicaId>, work: Pin<Box<dyn Future<Output = T> + Send>>) -> Self {
        Self { id: Arc::clone(id), work }
    }
}

impl<T> Future for OnBehalf<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let began = Instant::now();
        let result = self.work.as_mut().poll(context);
        if let Some(local) = Local::current() {
            let now = Instant::now();
            local.charge(&self.id, now.saturating_duration_since(began), now);
        }
        result
    }
}
