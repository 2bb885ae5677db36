//! Processor time of a worker, shared out to its partitions.
//!
//! Reading a thread's processor clock costs 2 µs, so it is read once per slice. Within a slice every partition
//! counts the time that its tasks were polled; at its end that time is scaled by how much of the worker's
//! waking time was processor time. What is charged therefore never exceeds what the thread used. A slice ends every
//! 100 ms while there is work, and with every poll that took long: so where the thread was preempted in a long
//! poll, neither its partition nor those before it pay for that.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use tokio::sync::Notify;

use super::CpuAccount;
use super::turns::poll_begins;

/// Length of a slice while there is work.
const SLICE: Duration = Duration::from_millis(100);
/// A poll of this length ends the slice: reading the clock costs less than a hundredth of it.
const LONG_POLL: Duration = Duration::from_micros(500);

thread_local! {
    /// How long this thread has slept, and since when it sleeps.
    static SLEPT: Cell<(Duration, Option<Instant>)> = const { Cell::new((Duration::ZERO, None)) };
}

/// The thread goes to sleep.
pub(super) fn thread_sleeps() {
    SLEPT.with(|slept| slept.set((slept.get().0, Some(Instant::now()))));
}

/// The thread is awake again.
pub(super) fn thread_wakes() {
    SLEPT.with(|slept| {
        let (sum, since) = slept.get();
        slept.set((sum + since.map_or(Duration::ZERO, |since| since.elapsed()), None));
    });
}

fn clock(id: ClockId) -> Duration {
    let time = clock_gettime(id);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or_default(),
        u32::try_from(time.tv_nsec).unwrap_or_default(),
    )
}

/// Processor time of the whole process.
pub(crate) fn process_cpu() -> Duration {
    clock(ClockId::ProcessCPUTime)
}

/// The slices of one worker.
#[derive(Debug)]
pub(crate) struct Slices {
    began: Cell<Instant>,
    cpu_before: Cell<Duration>,
    slept_before: Cell<Duration>,
    /// The partitions that were polled in this slice.
    polled: RefCell<Vec<Rc<CpuAccount>>>,
    work_came: Notify,
}

impl Slices {
    /// Begins the first slice. To be called on the worker's thread.
    pub(super) fn new() -> Rc<Self> {
        Rc::new(Self {
            began: Cell::new(Instant::now()),
            cpu_before: Cell::new(clock(ClockId::ThreadCPUTime)),
            slept_before: Cell::new(SLEPT.with(Cell::get).0),
            polled: RefCell::default(),
            work_came: Notify::new(),
        })
    }

    /// Ends a slice some time after work came, for as long as the worker lives.
    pub(super) async fn settle_loop(self: Rc<Self>) {
        loop {
            self.work_came.notified().await;
            tokio::time::sleep(SLICE).await;
            self.settle();
        }
    }

    /// Ends the slice: what the partitions used becomes processor time.
    pub(crate) fn settle(&self) {
        let (now, cpu, slept) = (Instant::now(), clock(ClockId::ThreadCPUTime), SLEPT.with(Cell::get).0);
        let asleep = slept.saturating_sub(self.slept_before.replace(slept));
        let awake = now.duration_since(self.began.replace(now)).saturating_sub(asleep);
        let used = cpu.saturating_sub(self.cpu_before.replace(cpu));
        for account in self.polled.borrow_mut().drain(..) {
            account.settle_slice(used.min(awake), awake);
        }
    }

    /// Charges time on the worker, until now, to a partition.
    pub(crate) fn charge(&self, account: &Rc<CpuAccount>, time: Duration, now: Instant) {
        if account.add_to_slice(time, now) {
            let mut polled = self.polled.borrow_mut();
            if polled.is_empty() {
                self.work_came.notify_one();
            }
            polled.push(Rc::clone(account));
        }
        if time >= LONG_POLL {
            self.settle();
        }
    }

    /// Charges every poll of `work` to a partition.
    pub(crate) fn metered<F: Future>(self: &Rc<Self>, account: &Rc<CpuAccount>, work: F) -> Metered<F> {
        Metered { slices: Rc::clone(self), account: Rc::clone(account), work: Box::pin(work) }
    }
}

/// Work whose time is charged to a partition.
pub(crate) struct Metered<F> {
    slices: Rc<Slices>,
    account: Rc<CpuAccount>,
    work: Pin<Box<F>>,
}

impl<F: Future> Future for Metered<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let began = Instant::now();
        poll_begins(began);
        let result = self.work.as_mut().poll(context);
        let now = Instant::now();
        self.slices.charge(&self.account, now.saturating_duration_since(began), now);
        result
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::worker::Turns;

    #[test]
    fn polled_time_becomes_no_more_than_the_thread_used() {
        let slices = Slices::new();
        let meter = Arc::default();
        let account = CpuAccount::new(&meter, &Arc::default(), None, &Turns::new(Instant::now()));
        let before = clock(ClockId::ThreadCPUTime);
        let mut sum = 0_u64;
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(slices.metered(&account, async {
            for n in 0..1_000_000_u64 {
                sum = std::hint::black_box(sum ^ n);
            }
        }));
        slices.settle();
        let charged = meter.read().cpu;
        assert!(charged > Duration::ZERO, "nothing was charged");
        assert!(charged <= clock(ClockId::ThreadCPUTime) - before, "more than the thread used was charged");
    }

    #[test]
    fn a_long_poll_in_which_the_thread_did_not_run_costs_its_partition_next_to_nothing() {
        let slices = Slices::new();
        let meter = Arc::default();
        let account = CpuAccount::new(&meter, &Arc::default(), None, &Turns::new(Instant::now()));
        // To the partition's clock, being preempted looks like this.
        let away = Duration::from_millis(20);
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let before = clock(ClockId::ThreadCPUTime);
        slices.settle();
        runtime.block_on(slices.metered(&account, async { std::thread::sleep(away) }));
        let used = clock(ClockId::ThreadCPUTime) - before;
        assert!(meter.read().cpu <= used, "{:?} of {used:?}", meter.read().cpu);
    }
}
