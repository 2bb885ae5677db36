//! A worker's thread: its executor and its loops.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use tokio::runtime::Builder;
use tokio::sync::watch;
use tokio::task::LocalSet;

use super::handle::{Intake, Order};
use super::{Local, slice, spawn_here};
use crate::host::Host;

/// Threads for work that blocks: opening state, looking up names. They end when they have nothing to do. What is opened
/// at the same time shares a sync of the disk.
const BLOCKING_THREADS: usize = 16;

/// Starts a worker. It runs until `stop` turns true.
pub(crate) fn start(
    intake: Intake,
    host: Arc<Host>,
    stop: watch::Receiver<bool>,
) -> std::io::Result<JoinHandle<()>> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .on_thread_park(slice::thread_sleeps)
        .on_thread_unpark(slice::thread_wakes)
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
    let set = Rc::new(LocalSet::new());
    let local = Local::install(&host, intake.index, &set);
    runtime.block_on(set.run_until(async {
        spawn_here(Rc::clone(&local.slices).settle_loop());
        spawn_here(Rc::clone(&local.turns).call_loop());
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
}
