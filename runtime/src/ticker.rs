//! The clock of preemption: a thread that advances the engine's epoch every millisecond while any worker is
//! awake, so that a guest which never returns gives way to its neighbours. While all workers sleep, so does it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread::{self, JoinHandle, Thread};
use std::time::Duration;

use wasmtime::Engine;

/// Longest time that a guest runs before it gives way.
const TICK: Duration = Duration::from_millis(1);
/// Ticks without a worker awake after which the ticker sleeps: waking it costs more than some idle ticks.
const IDLE_TICKS: u32 = 50;
/// A sleeping ticker looks around this often, whatever happens.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);

/// How workers tell the ticker whether they are awake.
#[derive(Debug, Default)]
pub(crate) struct Wakefulness {
    awake_workers: AtomicUsize,
    asleep: AtomicBool,
    stopping: AtomicBool,
    ticker: std::sync::OnceLock<Thread>,
}

impl Wakefulness {
    /// A worker begins to work.
    pub(crate) fn worker_wakes(&self) {
        self.awake_workers.fetch_add(1, SeqCst);
        if self.asleep.load(SeqCst) {
            self.wake_ticker();
        }
    }

    /// A worker has nothing to do.
    pub(crate) fn worker_sleeps(&self) {
        self.awake_workers.fetch_sub(1, SeqCst);
    }

    fn wake_ticker(&self) {
        if let Some(ticker) = self.ticker.get() {
            ticker.unpark();
        }
    }
}

/// The running thread. Dropping it stops it.
#[derive(Debug)]
pub(crate) struct Ticker {
    wakefulness: Arc<Wakefulness>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    pub(crate) fn start(engine: Engine, wakefulness: Arc<Wakefulness>) -> std::io::Result<Self> {
        let shared = Arc::clone(&wakefulness);
        let thread =
            thread::Builder::new().name("hvm-ticker".to_owned()).spawn(move || run(&engine, &shared))?;
        wakefulness.ticker.get_or_init(|| thread.thread().clone());
        Ok(Self { wakefulness, thread: Some(thread) })
    }
}

fn run(engine: &Engine, shared: &Wakefulness) {
    let mut idle_ticks = 0;
    while !shared.stopping.load(SeqCst) {
        thread::sleep(TICK);
        engine.increment_epoch();
        if shared.awake_workers.load(SeqCst) > 0 {
            idle_ticks = 0;
            continue;
        }
        idle_ticks += 1;
        if idle_ticks < IDLE_TICKS {
            continue;
        }
        shared.asleep.store(true, SeqCst);
        // A worker that woke before it could see `asleep` is seen here.
        if shared.awake_workers.load(SeqCst) == 0 && !shared.stopping.load(SeqCst) {
            thread::park_timeout(LONGEST_SLEEP);
        }
        shared.asleep.store(false, SeqCst);
        idle_ticks = 0;
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.wakefulness.stopping.store(true, SeqCst);
        self.wakefulness.wake_ticker();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the ticker thread had panicked");
        }
    }
}
