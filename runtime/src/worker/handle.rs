//! How others reach a worker: orders through a bounded channel.

use std::rc::Rc;

use tokio::sync::{mpsc, oneshot};

use super::{Local, spawn_here};
use crate::WorkerStopped;

/// Hand-overs that wait for a worker; whoever has one more waits with it.
const INTAKE: usize = 1024;

/// Something to do on a worker.
pub(super) type Order = Box<dyn FnOnce(&Rc<Local>) + Send>;

/// A way to run something on a worker.
#[derive(Debug, Clone)]
pub struct WorkerHandle {
    index: usize,
    orders: mpsc::Sender<Order>,
}

impl WorkerHandle {
    /// The worker's number, from 0.
    #[must_use]
    pub const fn index(&self) -> usize {
        self.index
    }

    /// Orders that wait for the worker.
    pub(crate) fn queued(&self) -> usize {
        self.orders.max_capacity() - self.orders.capacity()
    }

    /// Runs a task on the worker's thread, until it ends or the HVM stops. The task may hold what can't leave
    /// its thread. It must not block, and it should give way often: it shares the thread with partitions.
    ///
    /// # Errors
    /// When the HVM has stopped.
    pub async fn spawn<F, T>(&self, make: F) -> Result<(), WorkerStopped>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Future<Output = ()> + 'static,
    {
        let order: Order = Box::new(move |_| spawn_here(make()));
        self.orders.send(order).await.map_err(|_| WorkerStopped)
    }

    /// Runs a task on the worker's thread and returns its result.
    pub(crate) async fn call<F, T, R>(&self, make: F) -> Result<R, WorkerStopped>
    where
        F: FnOnce(&Rc<Local>) -> T + Send + 'static,
        T: Future<Output = R> + 'static,
        R: Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        let order: Order = Box::new(move |local| {
            let task = make(local);
            spawn_here(async move { drop(sender.send(task.await)) });
        });
        self.orders.send(order).await.map_err(|_| WorkerStopped)?;
        receiver.await.map_err(|_| WorkerStopped)
    }

    /// Does something on the worker's thread, once there is room for it.
    pub(crate) async fn order(&self, order: Order) -> Result<(), WorkerStopped> {
        self.orders.send(order).await.map_err(|_| WorkerStopped)
    }

    /// Does something on the worker's thread, unless it has too much to do.
    pub(crate) fn try_order(&self, order: Order) {
        if let Err(error) = self.orders.try_send(order) {
            tracing::debug!(worker = self.index, %error, "a hint to a worker was dropped");
        }
    }
}

/// What a worker is started with.
pub(crate) struct Intake {
    pub(super) index: usize,
    pub(super) orders: mpsc::Receiver<Order>,
}

/// Handles of workers that are yet to be started, and what they are started with.
pub(crate) fn prepare(count: usize) -> (Vec<WorkerHandle>, Vec<Intake>) {
    (0..count)
        .map(|index| {
            let (sender, receiver) = mpsc::channel(INTAKE);
            (WorkerHandle { index, orders: sender }, Intake { index, orders: receiver })
        })
        .unzip()
}
