//! A partition's share of the processor as a bucket of credit: time refills it, use empties it, and where it is
//! empty the guest waits. Whoever asks brings the time along.
//!
//! Debts are kept: a poll that took more than there was is made up for by a longer wait. So what is used over some
//! time is at most the share of that time and one [`BURST`], however late a wait ends.

use std::cell::Cell;
use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use hvm_types::CpuMhz;

/// What a partition that was idle may use at once is its share of this time.
pub(crate) const BURST: Duration = Duration::from_millis(50);

/// What a guest that waited may use before it may have to wait again, about: some turns of a guest.
const TURN_NANOS: i64 = 1_000_000;

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// Nanoseconds of processor time in each second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CpuRate(NonZeroU64);

impl CpuRate {
    /// The rate that is `share` of a host whose `processors` count as `host` together. `None` where it is a whole
    /// processor or more: a partition has one thread, and so no way to use more.
    pub(crate) fn of(share: CpuMhz, host: CpuMhz, processors: usize) -> Option<Self> {
        let whole = u64::from(host.0.max(1));
        let processors = u64::try_from(processors).unwrap_or(u64::MAX);
        let nanos =
            u128::from(share.0) * u128::from(processors) * u128::from(NANOS_PER_SECOND) / u128::from(whole);
        let nanos = u64::try_from(nanos).ok().filter(|nanos| *nanos < NANOS_PER_SECOND)?;
        Some(Self(NonZeroU64::new(nanos).unwrap_or(NonZeroU64::MIN)))
    }

    /// What it refills in `time`, in nanoseconds.
    fn in_time(self, time: Duration) -> i64 {
        let refill = time.as_nanos() * u128::from(self.0.get()) / u128::from(NANOS_PER_SECOND);
        i64::try_from(refill).unwrap_or(i64::MAX)
    }

    /// How long it takes to refill so many nanoseconds.
    fn time_for(self, nanos: i64) -> Duration {
        let nanos = u128::from(nanos.unsigned_abs()) * u128::from(NANOS_PER_SECOND);
        Duration::from_nanos(u64::try_from(nanos.div_ceil(u128::from(self.0.get()))).unwrap_or(u64::MAX))
    }
}

/// Whether a guest may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    /// At once.
    Now,
    /// After this time; a turn is set aside for it, and has to be [given back](CpuQuota::give_back) when it comes.
    After(Duration),
}

/// The bucket of one partition.
#[derive(Debug)]
pub(crate) struct CpuQuota {
    /// `None` is no limit.
    rate: Cell<Option<CpuRate>>,
    credit_nanos: Cell<i64>,
    refilled: Cell<Instant>,
}

impl CpuQuota {
    /// A full bucket.
    pub(crate) fn new(rate: Option<CpuRate>, now: Instant) -> Self {
        let full = rate.map_or(0, |rate| rate.in_time(BURST));
        Self { rate: Cell::new(rate), credit_nanos: Cell::new(full), refilled: Cell::new(now) }
    }

    /// Changes the share. What was used stays used.
    pub(crate) fn set_rate(&self, rate: Option<CpuRate>, now: Instant) {
        self.refill(now);
        self.rate.set(rate);
    }

    pub(crate) fn is_limited(&self) -> bool {
        self.rate.get().is_some()
    }

    fn refill(&self, now: Instant) {
        let time = now.saturating_duration_since(self.refilled.replace(now));
        if let Some(rate) = self.rate.get() {
            // A turn that was given back may be more than a burst; it is not cut.
            let credit = self.credit_nanos.get();
            let most = credit.max(rate.in_time(BURST));
            self.credit_nanos.set(credit.saturating_add(rate.in_time(time)).min(most));
        }
    }

    /// Takes what was used.
    pub(crate) fn charge(&self, used: Duration) {
        if self.is_limited() {
            let used = i64::try_from(used.as_nanos()).unwrap_or(i64::MAX);
            self.credit_nanos.set(self.credit_nanos.get().saturating_sub(used));
        }
    }

    /// Gives back what was taken too much.
    pub(crate) fn refund(&self, unused: Duration) {
        if self.is_limited() {
            let unused = i64::try_from(unused.as_nanos()).unwrap_or(i64::MAX);
            self.credit_nanos.set(self.credit_nanos.get().saturating_add(unused));
        }
    }

    /// Whether a guest may run now. Those that may not get their turns in the order in which they asked.
    pub(crate) fn admit(&self, now: Instant) -> Admission {
        self.refill(now);
        let Some(rate) = self.rate.get() else { return Admission::Now };
        let credit = self.credit_nanos.get();
        if credit > 0 {
            return Admission::Now;
        }
        let left = credit.saturating_sub(TURN_NANOS);
        self.credit_nanos.set(left);
        Admission::After(rate.time_for(left))
    }

    /// Gives back a turn that was set aside: its guest runs, and is charged for what it uses, or is gone.
    pub(crate) fn give_back(&self, now: Instant) {
        // First, or what came while it waited would be cut to a burst.
        self.refill(now);
        self.credit_nanos.set(self.credit_nanos.get().saturating_add(TURN_NANOS));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn rate(percent: u32) -> Option<CpuRate> {
        CpuRate::of(CpuMhz(percent), CpuMhz(100), 1)
    }

    #[test]
    fn a_share_of_the_host_is_a_rate_and_a_whole_processor_is_no_limit() {
        let of = |share, host, processors| CpuRate::of(CpuMhz(share), CpuMhz(host), processors);
        assert_eq!(of(500, 4_000, 2).map(|rate| rate.0.get()), Some(250_000_000));
        assert_eq!(of(2_000, 4_000, 2), None);
        assert_eq!(of(1, u32::MAX, 1).map(|rate| rate.0.get()), Some(1));
        assert_eq!(of(1, 0, 1), None);
    }

    /// Lets a guest that never ends run for `time` in polls of `poll`, each wait ending `late`. Returns what it
    /// used, and in which time: the last wait may end after `time`.
    fn run(quota: &CpuQuota, time: Duration, poll: Duration, late: Duration) -> (Duration, Duration) {
        let start = quota.refilled.get();
        let (mut now, end) = (start, start + time);
        let mut used = Duration::ZERO;
        while now < end {
            if let Admission::After(wait) = quota.admit(now) {
                now += wait + late;
                quota.give_back(now);
                assert_eq!(quota.admit(now), Admission::Now, "it was promised a turn");
            }
            now += poll;
            used += poll;
            quota.charge(poll);
        }
        (used, now - start)
    }

    #[test]
    fn a_guest_gets_its_share_however_long_its_polls_and_however_late_its_waits() {
        for percent in [1, 25, 50, 90] {
            for (poll, late) in [(MS / 4, MS / 8), (MS, MS), (7 * MS, 3 * MS)] {
                let now = Instant::now();
                let quota = CpuQuota::new(rate(percent), now);
                let (used, time) = run(&quota, Duration::from_secs(10), poll, late);
                let share = time * percent / 100;
                let most = share + BURST * percent / 100 + poll;
                assert!(used <= most, "{percent} %: {used:?} of {share:?}, polls {poll:?}");
                assert!(used >= share - 2 * poll - MS, "{percent} %: {used:?} of {share:?}, polls {poll:?}");
            }
        }
    }

    #[test]
    fn those_that_wait_get_their_turns_one_after_another() {
        let now = Instant::now();
        let quota = CpuQuota::new(rate(10), now);
        quota.charge(BURST / 10);
        assert_eq!(quota.admit(now), Admission::After(10 * MS));
        assert_eq!(quota.admit(now), Admission::After(20 * MS));
        // The first goes away without using its turn.
        quota.give_back(now);
        assert_eq!(quota.admit(now), Admission::After(20 * MS));
    }

    #[test]
    fn what_was_used_before_the_share_grew_is_not_forgiven() {
        let now = Instant::now();
        let quota = CpuQuota::new(rate(10), now);
        quota.charge(BURST / 10 + 50 * MS);
        quota.set_rate(rate(50), now);
        assert_eq!(quota.admit(now), Admission::After(102 * MS));
        quota.set_rate(None, now);
        assert_eq!(quota.admit(now), Admission::Now);
    }

    #[test]
    fn an_idle_partition_saves_no_more_than_one_burst() {
        let now = Instant::now();
        let quota = CpuQuota::new(rate(50), now);
        assert_eq!(quota.admit(now + Duration::from_secs(60)), Admission::Now);
        quota.charge(BURST / 2);
        assert!(matches!(quota.admit(now + Duration::from_secs(60)), Admission::After(_)));
    }
}
