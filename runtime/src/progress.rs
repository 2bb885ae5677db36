//! Where one request is: written down by its worker as it goes, readable from any thread, also while the guest
//! hangs; and told as a tracing span where somebody listens.
//!
//! Nothing is written here that may hold a secret: no query, no headers, no bodies.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hvm_types::{ReplicaId, RequestOutcome};
use rustix::time::{ClockId, clock_gettime};
use tracing::Span;
use tracing::field::Empty;

use crate::in_guest::InGuest;
use crate::observed::Topic;
use crate::trace_context::TraceContext;
use crate::{Doing, Phase};

/// Origins of calls under way that are remembered; the guest may have more.
const MOST_CALLS: usize = 8;

/// Where one request is.
pub(crate) struct Progress {
    number: u64,
    topic: Topic,
    began: Instant,
    began_coarse: Duration,
    pub(crate) in_guest: InGuest,
    /// The phase and since when: see [`pack`].
    now: AtomicU64,
    /// Origins of outgoing requests that are under way.
    calls: Mutex<Vec<String>>,
    trace: Option<TraceContext>,
    told: Option<Told>,
}

/// What is told when the request ends.
struct Told {
    span: Span,
    spent: Mutex<Spent>,
}

/// Time that was spent so far.
struct Spent {
    since: Instant,
    queue: Duration,
    guest: Duration,
    commit: Duration,
}

/// A phase that ends with this; the request is again in the phase that it was in before.
pub(crate) struct During<'a> {
    progress: &'a Progress,
    before: Step,
}

/// A phase as it fits into eight bits, and the number of keys where it has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Body,
    Record,
    Turn,
    Place,
    Start,
    Guest,
    State { keys: u32 },
    Commit,
    Throttled,
}

/// To 4 ms, for a fraction of what the precise clock costs.
fn coarse_now() -> Duration {
    let time = clock_gettime(ClockId::MonotonicCoarse);
    let nanos = u32::try_from(time.tv_nsec).unwrap_or_default();
    Duration::new(u64::try_from(time.tv_sec).unwrap_or_default(), nanos)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// 8 bits of phase, 24 of keys, 32 of milliseconds since the request began.
fn pack(step: Step, since: Duration) -> u64 {
    let (kind, keys) = match step {
        Step::Body => (0, 0),
        Step::Turn => (1, 0),
        Step::Place => (2, 0),
        Step::Start => (3, 0),
        Step::Guest => (4, 0),
        Step::State { keys } => (5, keys.min(0xff_ffff)),
        Step::Commit => (6, 0),
        Step::Throttled => (7, 0),
        Step::Record => (8, 0),
    };
    let millis = u32::try_from(since.as_millis()).unwrap_or(u32::MAX);
    kind << 56 | u64::from(keys) << 32 | u64::from(millis)
}

fn unpack(packed: u64) -> (Step, Duration) {
    let keys = u32::try_from(packed >> 32 & 0xff_ffff).expect("24 bits");
    let step = match packed >> 56 {
        0 => Step::Body,
        1 => Step::Turn,
        2 => Step::Place,
        3 => Step::Start,
        4 => Step::Guest,
        5 => Step::State { keys },
        6 => Step::Commit,
        8 => Step::Record,
        _ => Step::Throttled,
    };
    (step, Duration::from_millis(packed & 0xffff_ffff))
}

impl Progress {
    /// A request begins. `trace` becomes that of a new span, where one is told.
    pub(crate) fn begin(
        id: &ReplicaId,
        number: u64,
        topic: Topic,
        trace: Option<TraceContext>,
        step: Step,
        began: Instant,
    ) -> Arc<Self> {
        let told = Told::begin(id, number, &topic, began);
        let trace = match &told {
            None => trace,
            Some(told) => {
                let own = TraceContext::within(trace.as_ref());
                told.span.record("trace_id", own.trace_id());
                told.span.record("span_id", own.parent_id());
                if let Some(outer) = &trace {
                    told.span.record("parent_id", outer.parent_id());
                }
                Some(own)
            }
        };
        Arc::new(Self {
            number,
            topic,
            began,
            began_coarse: coarse_now(),
            in_guest: InGuest::new(began),
            now: AtomicU64::new(pack(step, Duration::ZERO)),
            calls: Mutex::default(),
            trace,
            told,
        })
    }

    /// When it was asked for.
    pub(crate) const fn began(&self) -> Instant {
        self.began
    }

    /// The trace it belongs to.
    pub(crate) const fn trace(&self) -> Option<&TraceContext> {
        self.trace.as_ref()
    }

    /// Whether the trace names a span of this host.
    pub(crate) const fn is_told(&self) -> bool {
        self.told.is_some()
    }

    /// The next phase begins.
    pub(crate) fn set(&self, step: Step) {
        if let Some(told) = &self.told {
            told.add(self.step());
        }
        self.now.store(pack(step, coarse_now().saturating_sub(self.began_coarse)), Relaxed);
    }

    /// A phase begins that ends with what is returned.
    pub(crate) fn during(&self, step: Step) -> During<'_> {
        let before = self.step();
        self.set(step);
        During { progress: self, before }
    }

    fn step(&self) -> Step {
        unpack(self.now.load(Relaxed)).0
    }

    /// An outgoing request begins.
    pub(crate) fn call_begins(&self, origin: &str) {
        let mut calls = lock(&self.calls);
        if calls.len() < MOST_CALLS {
            calls.push(origin.to_owned());
        }
    }

    /// An outgoing request has its answer, or has failed.
    pub(crate) fn call_ends(&self, origin: &str) {
        let mut calls = lock(&self.calls);
        if let Some(place) = calls.iter().position(|call| call == origin) {
            calls.swap_remove(place);
        }
    }

    /// The request has ended, in this way.
    pub(crate) fn ended(&self, outcome: RequestOutcome, status: Option<u16>) {
        let Some(told) = &self.told else { return };
        told.add(self.step());
        told.span.record("outcome", tracing::field::debug(outcome));
        if let Some(status) = status {
            told.span.record("status", status);
        }
    }

    /// What a person sees of it.
    pub(crate) fn observe(&self) -> Doing {
        let (step, since) = unpack(self.now.load(Relaxed));
        let in_phase = (coarse_now().saturating_sub(self.began_coarse)).saturating_sub(since);
        let phase = match step {
            Step::Body => Phase::Body,
            Step::Record => Phase::Record,
            Step::Turn => Phase::Turn,
            Step::Place => Phase::Place,
            Step::Start => Phase::Start,
            Step::Guest => match lock(&self.calls).first() {
                Some(origin) => Phase::Call { origin: origin.clone() },
                None => Phase::Guest,
            },
            Step::State { keys } => Phase::State { keys },
            Step::Commit => Phase::Commit,
            Step::Throttled => Phase::Throttled,
        };
        Doing {
            number: self.number,
            what: self.topic.to_string(),
            since: self.began.elapsed(),
            phase,
            in_phase,
            trace: self.trace.as_ref().map(|trace| trace.trace_id().to_owned()),
        }
    }
}

/// As log lines name it.
impl std::fmt::Display for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "request {} ({}", self.number, self.topic)?;
        match &self.trace {
            Some(trace) => write!(f, ", trace {})", trace.trace_id()),
            None => f.write_str(")"),
        }
    }
}

impl Told {
    /// Nothing where nobody listens, which costs one load.
    fn begin(id: &ReplicaId, number: u64, topic: &Topic, began: Instant) -> Option<Self> {
        let span = tracing::debug_span!(
            target: "hvm::request",
            "request",
            deployment = %id.deployment,
            group = %id.group,
            partition = id.index,
            number,
            method = %topic.method(),
            trace_id = Empty,
            span_id = Empty,
            parent_id = Empty,
            outcome = Empty,
            status = Empty,
            queue_us = Empty,
            guest_us = Empty,
            commit_us = Empty,
        );
        let spent =
            Spent { since: began, queue: Duration::ZERO, guest: Duration::ZERO, commit: Duration::ZERO };
        (!span.is_disabled()).then(|| Self { span, spent: Mutex::new(spent) })
    }

    /// Counts the time since the last count for the phase that ends.
    fn add(&self, step: Step) {
        let mut spent = lock(&self.spent);
        let now = Instant::now();
        let time = now.duration_since(std::mem::replace(&mut spent.since, now));
        match step {
            Step::Body | Step::Record | Step::Turn | Step::Place | Step::Throttled => spent.queue += time,
            Step::Start | Step::Guest | Step::State { .. } => spent.guest += time,
            Step::Commit => spent.commit += time,
        }
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        let spent = self.spent.get_mut().unwrap_or_else(PoisonError::into_inner);
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.span.record("queue_us", micros(spent.queue));
        self.span.record("guest_us", micros(spent.guest));
        self.span.record("commit_us", micros(spent.commit));
    }
}

impl Drop for During<'_> {
    fn drop(&mut self) {
        self.progress.set(self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phase_is_read_as_it_was_written() {
        let steps = [
            Step::Body,
            Step::Turn,
            Step::Place,
            Step::Start,
            Step::Guest,
            Step::State { keys: 1_000 },
            Step::Commit,
            Step::Throttled,
            Step::Record,
        ];
        for step in steps {
            let since = Duration::from_millis(86_400_000);
            assert_eq!(unpack(pack(step, since)), (step, since));
        }
        let (step, since) = unpack(pack(Step::State { keys: u32::MAX }, Duration::MAX));
        assert_eq!(step, Step::State { keys: 0xff_ffff });
        assert_eq!(since, Duration::from_millis(u64::from(u32::MAX)));
    }
}
