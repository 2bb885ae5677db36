//! One partition as it can be seen from any thread, also while its guest hangs: what its worker writes down as
//! it goes.

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use http::{Method, Uri};
use hvm_types::{ByteSize, Epoch, Generation, Meter, ReplicaId, ReplicaState, Sequence};

use crate::changes::ChangeList;
use crate::core_dump::DumpSlot;
use crate::histogram::DurationHistogram;
use crate::memory::MemoryAccount;
use crate::meter::MeterCell;
use crate::progress::{Progress, Step};
use crate::trace_context::TraceContext;
use crate::{CallKind, PartitionStatus, PartitionUsage, RequestError};

/// One partition as it can be seen.
pub(crate) struct Observed {
    pub(crate) id: ReplicaId,
    pub(crate) meter: Arc<MeterCell>,
    instances: AtomicU32,
    pub(crate) waiting: AtomicU32,
    /// Requests on their way from other threads.
    arriving: AtomicU32,
    /// How many may wait.
    mailbox: AtomicU32,
    pub(crate) throttled: Arc<AtomicU32>,
    /// How long requests took, of all copies of the group together.
    pub(crate) latency: Arc<DurationHistogram>,
    /// Who waits for a core dump.
    pub(crate) dumps: Arc<DumpSlot>,
    pub(crate) waiting_bytes: AtomicU64,
    pub(crate) stored_bytes: AtomicU64,
    sequence: AtomicU64,
    epoch: AtomicU64,
    generation: AtomicU64,
    /// Processor time that the meter held from before the start.
    cpu_before: Duration,
    /// The meter as of the last [`take_used`](Observed::take_used).
    taken: Mutex<Meter>,
    state: Mutex<ReplicaState>,
    accounts: Mutex<Vec<Weak<MemoryAccount>>>,
    /// Requests accepted since it was opened.
    requests: AtomicU64,
    doing: Mutex<Vec<Option<Arc<Progress>>>>,
    changes: Arc<ChangeList>,
    /// Whether it is in `changes`.
    has_changed: AtomicBool,
}

/// What a guest is asked.
pub(crate) enum Topic {
    Http(Method, Uri),
    Call(CallKind, Cow<'static, str>),
}

impl Topic {
    /// The method, which is one of a few words, or what kind of call it is.
    pub(crate) fn method(&self) -> String {
        match self {
            Self::Http(method, _) => method.to_string(),
            Self::Call(kind, _) => kind.to_string(),
        }
    }
}

impl std::fmt::Display for Topic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Http(method, uri) => write!(f, "{method} {}", uri.path()),
            Self::Call(kind, name) => write!(f, "{kind} {name}"),
        }
    }
}

/// Shows a request as long as it lives.
pub(crate) struct DoingGuard {
    observed: Arc<Observed>,
    place: usize,
    progress: Arc<Progress>,
}

impl std::ops::Deref for DoingGuard {
    type Target = Arc<Progress>;

    fn deref(&self) -> &Arc<Progress> {
        &self.progress
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Observed {
    pub(crate) fn new(
        id: ReplicaId,
        epoch: Epoch,
        generation: Generation,
        used_before: &Meter,
        changes: &Arc<ChangeList>,
        latency: Arc<DurationHistogram>,
    ) -> Arc<Self> {
        Arc::new(Self {
            id,
            meter: MeterCell::starting_at(used_before),
            instances: AtomicU32::new(0),
            waiting: AtomicU32::new(0),
            arriving: AtomicU32::new(0),
            mailbox: AtomicU32::new(u32::MAX),
            throttled: Arc::default(),
            latency,
            dumps: Arc::default(),
            waiting_bytes: AtomicU64::new(0),
            stored_bytes: AtomicU64::new(0),
            sequence: AtomicU64::new(0),
            epoch: AtomicU64::new(epoch.0),
            generation: AtomicU64::new(generation.0),
            cpu_before: used_before.cpu,
            taken: Mutex::new(used_before.clone()),
            state: Mutex::new(ReplicaState::Recovering),
            accounts: Mutex::default(),
            requests: AtomicU64::new(0),
            doing: Mutex::default(),
            changes: Arc::clone(changes),
            has_changed: AtomicBool::new(false),
        })
    }

    pub(crate) fn state(&self) -> ReplicaState {
        lock(&self.state).clone()
    }

    /// Whether it serves, without a copy of its state where it does.
    pub(crate) fn check_ready(&self) -> Result<(), RequestError> {
        match &*lock(&self.state) {
            ReplicaState::Ready => Ok(()),
            ReplicaState::Fenced { epoch } => Err(RequestError::Fenced { epoch: *epoch }),
            state => Err(RequestError::NotReady { id: self.id.clone(), state: state.to_string() }),
        }
    }

    pub(crate) fn set_state(self: &Arc<Self>, state: ReplicaState) {
        *lock(&self.state) = state;
        self.changes.note(self);
    }

    /// An instance is being made. It is to be seen only while the partition is ready: one that goes when the partition
    /// is closed already must not speak for who has taken its name.
    pub(crate) fn instance_came(self: &Arc<Self>) {
        if self.instances.fetch_add(1, Relaxed) == 0 && self.state() == ReplicaState::Ready {
            self.changes.note_instance(self);
        }
    }

    /// An instance is gone.
    pub(crate) fn instance_went(self: &Arc<Self>) {
        if self.instances.fetch_sub(1, Relaxed) == 1 && self.state() == ReplicaState::Ready {
            self.changes.note_instance(self);
        }
    }

    /// The state, which is `Hibernated` where it is ready without an instance.
    fn visible_state(&self) -> ReplicaState {
        match self.state() {
            ReplicaState::Ready if self.instances.load(Relaxed) == 0 => ReplicaState::Hibernated,
            state => state,
        }
    }

    /// True where its change was not noted yet.
    pub(crate) fn mark_changed(&self) -> bool {
        !self.has_changed.swap(true, SeqCst)
    }

    /// The state after its change; what changes from here on is a further change.
    pub(crate) fn take_change(&self) -> ReplicaState {
        self.has_changed.store(false, SeqCst);
        self.visible_state()
    }

    pub(crate) fn set_version(
        &self,
        epoch: Epoch,
        generation: Generation,
        mailbox: u32,
        account: &Arc<MemoryAccount>,
    ) {
        self.mailbox.store(mailbox, Relaxed);
        self.epoch.store(epoch.0, Relaxed);
        self.generation.store(generation.0, Relaxed);
        let mut accounts = lock(&self.accounts);
        accounts.retain(|account| account.strong_count() > 0);
        accounts.push(Arc::downgrade(account));
    }

    pub(crate) fn set_committed(&self, sequence: Sequence, stored: Option<ByteSize>) {
        self.sequence.store(sequence.0, Relaxed);
        if let Some(stored) = stored {
            self.stored_bytes.store(stored.0, Relaxed);
        }
    }

    /// Shows what is asked from here on.
    pub(crate) fn begin(
        self: &Arc<Self>,
        topic: Topic,
        trace: Option<TraceContext>,
        step: Step,
        began: Instant,
    ) -> DoingGuard {
        let number = self.requests.fetch_add(1, Relaxed) + 1;
        let progress = Progress::begin(&self.id, number, topic, trace, step, began);
        let mut doing = lock(&self.doing);
        let place = doing.iter().position(Option::is_none).unwrap_or_else(|| {
            doing.push(None);
            doing.len() - 1
        });
        doing[place] = Some(Arc::clone(&progress));
        DoingGuard { observed: Arc::clone(self), place, progress }
    }

    fn memory(&self) -> ByteSize {
        let held = |account: &Weak<MemoryAccount>| account.upgrade().map_or(0, |account| account.observe().0);
        let held: u64 = lock(&self.accounts).iter().map(held).sum();
        ByteSize(held + self.waiting_bytes.load(Relaxed))
    }

    /// The meter, brought up to date.
    pub(crate) fn read_meter(&self) -> Meter {
        self.memory();
        self.meter.read()
    }

    /// The part of a meter's processor time that was used since the HVM started.
    pub(crate) fn cpu_since_start(&self, meter: &Meter) -> Duration {
        meter.cpu.saturating_sub(self.cpu_before)
    }

    /// What was used since the last call, at first since it was opened. `None` where nothing was.
    pub(crate) fn take_used(&self) -> Option<PartitionUsage> {
        let changed = self.meter.take_changed();
        // Memory is charged by time, so whoever holds some uses it without doing anything.
        if !changed && self.instances.load(Relaxed) == 0 {
            return None;
        }
        let now = self.read_meter();
        let mut taken = lock(&self.taken);
        let meter = now.saturating_sub(&taken);
        *taken = now;
        Some(PartitionUsage { meter, ..self.usage() })
    }

    pub(crate) fn status(&self) -> PartitionStatus {
        let instances = self.instances.load(Relaxed);
        let mut doing: Vec<_> =
            lock(&self.doing).iter().flatten().map(|progress| progress.observe()).collect();
        doing.sort_by_key(|doing| std::cmp::Reverse(doing.since));
        PartitionStatus {
            id: self.id.clone(),
            state: self.visible_state(),
            generation: Generation(self.generation.load(Relaxed)),
            epoch: Epoch(self.epoch.load(Relaxed)),
            sequence: Sequence(self.sequence.load(Relaxed)),
            mailbox: self.waiting.load(Relaxed),
            throttled: self.throttled.load(Relaxed),
            instances,
            memory: self.memory(),
            stored: ByteSize(self.stored_bytes.load(Relaxed)),
            doing,
        }
    }

    pub(crate) fn usage(&self) -> PartitionUsage {
        PartitionUsage {
            id: self.id.clone(),
            meter: self.read_meter(),
            stored: ByteSize(self.stored_bytes.load(Relaxed)),
        }
    }
}

/// So many may wait and arrive together, however small the mailbox is: by the time they arrive, others may have begun to
/// run.
const LEAST_ARRIVING: u32 = 32;

/// A request on its way from another thread, which its partition's worker has not seen yet.
pub(crate) struct Arriving(Arc<Observed>);

impl Arriving {
    /// Sets out, or is refused where clearly more wait and arrive than may wait. So a flood costs its partition's worker
    /// nothing: the thread that asks refuses it. Of what arrives, the worker decides.
    pub(crate) fn set_out(observed: Arc<Observed>) -> Result<Self, RequestError> {
        let limit = observed.mailbox.load(Relaxed);
        let arriving = observed.arriving.fetch_add(1, Relaxed);
        let this = Self(observed);
        if arriving.saturating_add(this.0.waiting.load(Relaxed)) >= limit.max(LEAST_ARRIVING) {
            let error = RequestError::MailboxFull { id: this.0.id.clone(), limit };
            this.0.meter.count(error.outcome());
            return Err(error);
        }
        Ok(this)
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        self.0.arriving.fetch_sub(1, Relaxed);
    }
}

impl Drop for DoingGuard {
    fn drop(&mut self) {
        lock(&self.observed.doing)[self.place] = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_not_fit_the_mailbox_does_not_set_out() {
        let id: ReplicaId = "d/g/0".parse().expect("a valid id");
        let observed =
            Observed::new(id, Epoch(1), Generation(1), &Meter::default(), &Arc::default(), Arc::default());
        observed.mailbox.store(50, Relaxed);
        observed.waiting.store(30, Relaxed);
        let set_out = || Arriving::set_out(Arc::clone(&observed));
        let mut arriving: Vec<_> = (0..20).map(|_| set_out().expect("room")).collect();
        let refused = set_out().err();
        assert!(matches!(refused, Some(RequestError::MailboxFull { limit: 50, .. })), "{refused:?}");
        assert_eq!(observed.meter.read().refused, 1);
        arriving.pop();
        assert!(set_out().is_ok(), "one has arrived since");
    }
}
