//! One partition's processor time on its worker: what its tasks were polled for, what of that was processor time,
//! and whether its guests may go on.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use super::quota::{Admission, CpuQuota, CpuRate};
use super::standing::Standing;
use super::turns::{Taking, Turns, poll_began};
use crate::meter::MeterCell;
use crate::progress::{During, Progress, Step};

/// The processor time of one partition.
#[derive(Debug)]
pub(crate) struct CpuAccount {
    meter: Arc<MeterCell>,
    quota: CpuQuota,
    standing: Rc<Standing>,
    turns: Rc<Turns>,
    /// Time on the worker since the slice began, not yet turned into processor time.
    slice: Cell<Duration>,
    /// Requests that wait for the quota, for others to see.
    throttled: Arc<AtomicU32>,
}

impl CpuAccount {
    pub(crate) fn new(
        meter: &Arc<MeterCell>,
        throttled: &Arc<AtomicU32>,
        rate: Option<CpuRate>,
        turns: &Rc<Turns>,
    ) -> Rc<Self> {
        let now = Instant::now();
        Rc::new(Self {
            meter: Arc::clone(meter),
            quota: CpuQuota::new(rate, now),
            standing: Rc::new(Standing::new(now)),
            turns: Rc::clone(turns),
            slice: Cell::new(Duration::ZERO),
            throttled: Arc::clone(throttled),
        })
    }

    /// Changes the share, where a new version has another one.
    pub(crate) fn set_rate(&self, rate: Option<CpuRate>) {
        self.quota.set_rate(rate, Instant::now());
    }

    /// Adds time on the worker, until now, to the slice. True where it is the first of the slice.
    pub(super) fn add_to_slice(&self, time: Duration, now: Instant) -> bool {
        self.quota.charge(time);
        self.turns.polled(&self.standing, time, now);
        let before = self.slice.get();
        self.slice.set(before + time);
        before.is_zero() && !time.is_zero()
    }

    /// Ends the slice: of the time on the worker, `used` of `awake` was processor time.
    pub(super) fn settle_slice(&self, used: Duration, awake: Duration) {
        let slice = self.slice.take();
        let cpu = (slice.as_nanos() * used.as_nanos()).checked_div(awake.as_nanos());
        let cpu = cpu.map_or(slice, |nanos| Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)));
        self.quota.refund(slice.saturating_sub(cpu));
        self.meter.add_cpu(cpu);
    }

    /// Runs a guest's work within the partition's share: where that is used up, the work waits, and the worker does
    /// something else, which `progress` shows. A heavy partition's work waits for its turn, too. No such wait is time in
    /// the guest. Deadlines belong around this, so that a wait counts against them. The work stays where it is pinned: a guest's call is a future of some
    /// kilobytes, and whoever passes it on by value copies it.
    pub(crate) async fn throttled<F: Future>(
        self: &Rc<Self>,
        progress: Option<&Progress>,
        mut work: Pin<&mut F>,
    ) -> F::Output {
        let mut wait: Option<Wait<'_>> = None;
        let mut taking = Taking::new(&self.turns, &self.standing);
        let mut held_up = HeldUp { progress, is_now: false };
        poll_fn(move |context| {
            if (self.quota.is_limited() || wait.is_some())
                && self.poll_admitted(progress, &mut wait, context).is_pending()
            {
                taking.leave();
                held_up.since(poll_began);
                return Poll::Pending;
            }
            if taking.poll_called(context).is_pending() {
                held_up.since(poll_began);
                return Poll::Pending;
            }
            held_up.ends();
            let result = work.as_mut().poll(context);
            if let Some(gave_way) = taking.was_polled()
                && result.is_pending()
            {
                held_up.since(|| gave_way);
            }
            result
        })
        .await
    }

    fn poll_admitted<'p>(
        self: &Rc<Self>,
        progress: Option<&'p Progress>,
        wait: &mut Option<Wait<'p>>,
        context: &mut Context<'_>,
    ) -> Poll<()> {
        if wait.is_none()
            && let Admission::After(time) = self.quota.admit(Instant::now())
        {
            *wait = Some(Wait::begin(self, progress, time));
        }
        if let Some(waiting) = wait {
            ready!(waiting.until.as_mut().poll(context));
            *wait = None;
        }
        Poll::Ready(())
    }
}

/// Whether a request is held up before or between the polls of its guest. The clock was read already: for the poll, or when
/// the guest gave way.
struct HeldUp<'p> {
    progress: Option<&'p Progress>,
    is_now: bool,
}

impl HeldUp<'_> {
    fn since(&mut self, when: impl FnOnce() -> Instant) {
        if let Some(progress) = self.progress
            && !self.is_now
        {
            self.is_now = true;
            progress.in_guest.waits(when());
        }
    }

    fn ends(&mut self) {
        if let Some(progress) = self.progress
            && self.is_now
        {
            self.is_now = false;
            progress.in_guest.goes_on(poll_began());
        }
    }
}

/// A guest's wait for its turn, which is set aside for as long as this lives.
struct Wait<'p> {
    account: Rc<CpuAccount>,
    since: Instant,
    until: Pin<Box<tokio::time::Sleep>>,
    _shown: Option<During<'p>>,
}

impl<'p> Wait<'p> {
    fn begin(account: &Rc<CpuAccount>, progress: Option<&'p Progress>, time: Duration) -> Self {
        account.throttled.fetch_add(1, Relaxed);
        Self {
            account: Rc::clone(account),
            since: Instant::now(),
            until: Box::pin(tokio::time::sleep(time)),
            _shown: progress.map(|progress| progress.during(Step::Throttled)),
        }
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        self.account.throttled.fetch_sub(1, Relaxed);
        let now = Instant::now();
        self.account.quota.give_back(now);
        self.account.meter.add_throttled(now.saturating_duration_since(self.since));
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use hvm_types::CpuMhz;

    use super::*;

    fn account(rate: Option<CpuRate>) -> Rc<CpuAccount> {
        CpuAccount::new(&Arc::default(), &Arc::default(), rate, &Turns::new(Instant::now()))
    }

    #[test]
    fn a_slice_becomes_processor_time_by_the_workers_share() {
        let account = account(None);
        assert!(account.add_to_slice(Duration::from_millis(60), Instant::now()));
        assert!(!account.add_to_slice(Duration::from_millis(40), Instant::now()));
        account.settle_slice(Duration::from_secs(1), Duration::from_secs(2));
        assert_eq!(account.meter.read().cpu, Duration::from_millis(50));
        assert!(
            account.add_to_slice(Duration::from_millis(1), Instant::now()),
            "the slice did not start anew"
        );
    }

    #[tokio::test]
    async fn work_beyond_the_share_waits_and_its_wait_is_counted_and_can_be_broken_off() {
        let account = account(CpuRate::of(CpuMhz(1), CpuMhz(1_000), 1));
        assert_eq!(account.throttled(None, pin!(async { 7 })).await, 7, "an unused share lets work pass");
        account.add_to_slice(Duration::from_secs(1), Instant::now());
        let mut work = Box::pin(async { 7 });
        let mut waits = Box::pin(account.throttled(None, work.as_mut()));
        assert!(futures::poll!(waits.as_mut()).is_pending());
        assert_eq!(account.throttled.load(Relaxed), 1);
        drop(waits);
        assert_eq!(account.throttled.load(Relaxed), 0);
        assert!(account.meter.read().throttled > Duration::ZERO);
        // Its second was no processor time after all.
        account.settle_slice(Duration::ZERO, Duration::from_secs(1));
        assert_eq!(account.throttled(None, pin!(async { 7 })).await, 7);
    }
}
