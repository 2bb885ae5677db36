//! Workers: threads with an executor of their own. Each owns the partitions that are pinned to it; what arrives
//! elsewhere is handed over through a bounded channel.
//!
//! Loops of a worker:
//! ```text
//! channel ──▶ intake ──▶ partitions (tasks of their own, while they have requests)
//! work ─────▶ slices    every 100 ms while there is work: processor time to partitions
//! time ─────▶ hibernate every quarter of the idle time: instances of idle partitions go
//! ```

mod local;
mod slice;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use tokio::runtime::Builder;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::LocalSet;

pub(crate) use local::{Local, Slot, spawn_here};
pub(crate) use slice::{Slices, process_cpu};

use crate::WorkerStopped;
use crate::host::Host;
use crate::ticker::Wakefulness;

/// Hand-overs that wait for a worker; whoever has one more waits with it.
const INTAKE: usize = 1024;
/// Threads for work that blocks: opening state, looking up names.
const BLOCKING_THREADS: usize = 4;

/// Something to do on a worker.
type Order = Box<dyn FnOnce(&Rc<Local>) + Send>;

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
    index: usize,
    orders: mpsc::Receiver<Order>,
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

/// Starts a worker. It runs until `stop` turns true.
pub(crate) fn start(
    intake: Intake,
    host: Arc<Host>,
    wakefulness: Arc<Wakefulness>,
    stop: watch::Receiver<bool>,
) -> std::io::Result<JoinHandle<()>> {
    let (parks, unparks) = (Arc::clone(&wakefulness), wakefulness);
    let runtime = Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .on_thread_park(move || {
            parks.worker_sleeps();
            slice::thread_sleeps();
        })
        .on_thread_unpark(move || {
            slice::thread_wakes();
            unparks.worker_wakes();
        })
        .build()?;
    thread::Builder::new()
        .name(format!("hvm-worker-{}", intake.index))
        .spawn(move || run(intake, host, &runtime, stop))
}

/// A fault of the host fails what was ordered, and not the worker with all its partitions.
fn carry_out(order: Order, local: &Rc<Local>) {
    if catch_unwind(AssertUnwindSafe(|| order(local))).is_err() {
        tracing::error!(worker = local.index(), "the host failed in what a worker was told to do");
    }
}

fn run(
    mut intake: Intake,
    host: Arc<Host>,
    runtime: &tokio::runtime::Runtime,
    mut stop: watch::Receiver<bool>,
) {
    host.wakefulness.worker_wakes();
    let set = Rc::new(LocalSet::new());
    let local = Local::install(&host, intake.index, &set);
    runtime.block_on(set.run_until(async {
        spawn_here(Rc::clone(&local.slices).settle_loop());
        spawn_here(Rc::clone(&local).hibernate_loop());
        loop {
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => break,
                order = intake.orders.recv() => match order {
                    Some(order) => carry_out(order, &local),
                    None => break,
                },
            }
        }
    }));
    local.slices.settle();
    // Tasks hold partitions and partitions hold tasks: both must go before the thread does.
    local.uninstall();
    drop(set);
    host.wakefulness.worker_sleeps();
}
