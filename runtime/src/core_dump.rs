//! A core dump that somebody asked for: memory, globals and stack of a guest at the place where it was stopped. This
//! is the asking and the bounds; `guest::dump` makes it.
//!
//! A dump holds whatever the guest's memory held, secrets as well. So nothing is dumped unless somebody waits for it,
//! nothing is kept here, and who stops waiting has asked for nothing.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hvm_types::{ByteSize, ReplicaId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::Trap;

/// Core dumps that are made at the same time on one host. Each takes up to three times the guest's memory.
pub(crate) const MAX_DUMPING: usize = 1;
/// Most linear memory of a guest that is dumped.
pub(crate) const MAX_DUMPED_MEMORY: ByteSize = ByteSize::mib(256);
/// How long before its deadline a guest is stopped: at the deadline itself its call is dropped, without a trace of
/// where it was, unless it is just running. At most a tenth of the time that it has.
const BEFORE_DEADLINE: Duration = Duration::from_millis(20);
/// When a guest is stopped of which somebody wants a dump, if nothing else stops it before: shortly before its deadline.
pub(crate) fn stop_before(began: Instant, deadline: Instant) -> Instant {
    let margin = BEFORE_DEADLINE.min(deadline.saturating_duration_since(began) / 10);
    deadline.checked_sub(margin).unwrap_or(deadline)
}

/// Nobody asks.
const NOT_WANTED: u64 = 0;

/// A guest's memory, globals and stack, as they were when it was stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CoreDump {
    /// The partition.
    pub id: ReplicaId,
    /// What it was asked: number, method and path of the request, or that it started.
    pub request: String,
    /// Why it was stopped.
    pub trap: Trap,
    /// Where it was stopped, the innermost function first, at most 16, by the names that its component holds.
    pub frames: Vec<String>,
    /// The dump in the format of <https://github.com/WebAssembly/tool-conventions/blob/main/Coredump.md>. A custom
    /// section `hvm-stopped` holds the other fields as text.
    pub bytes: Vec<u8>,
}

/// Why there is no core dump.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CoreDumpError {
    /// The partition is not here.
    #[error("dump {id}: it does not run on this host")]
    Unknown {
        /// The partition.
        id: ReplicaId,
    },
    /// Somebody else waits for one.
    #[error("dump {id}: somebody else waits for its core dump; one at a time")]
    Busy {
        /// The partition.
        id: ReplicaId,
    },
    /// The guest was stopped and had more memory than is dumped.
    #[error("dump {id}: its guest was stopped ({trap}) with {memory} of memory; at most {limit} are dumped")]
    TooLarge {
        /// The partition.
        id: ReplicaId,
        /// Why its guest was stopped.
        trap: Trap,
        /// What it had.
        memory: ByteSize,
        /// What is dumped at most.
        limit: ByteSize,
    },
    /// The partition was closed before, or its guest was stopped and could not be dumped.
    #[error("dump {id}: it was closed, or its guest could not be dumped; its log says which")]
    Gone {
        /// The partition.
        id: ReplicaId,
    },
}

type Reply = oneshot::Sender<Result<CoreDump, CoreDumpError>>;

/// Whoever waits for the dump of one partition.
#[derive(Debug, Default)]
pub(crate) struct DumpSlot {
    /// How long a guest may compute before it is stopped for the dump, in nanoseconds; [`NOT_WANTED`] mostly. What a
    /// running guest looks at.
    after_nanos: AtomicU64,
    asker: Mutex<Asker>,
}

#[derive(Debug, Default)]
struct Asker {
    /// Grows with each one, so that who leaves late takes no successor away.
    number: u64,
    reply: Option<(Reply, Arc<Semaphore>)>,
}

/// The right to dump a guest, and who gets it.
#[derive(Debug)]
pub(crate) struct DumpOrder {
    pub(crate) reply: Reply,
    pub(crate) dumping: OwnedSemaphorePermit,
}

/// Waits for a core dump. Whoever drops it asks no more.
#[derive(Debug)]
#[must_use = "nothing is dumped when nobody waits"]
pub struct CoreDumpWait {
    id: ReplicaId,
    number: u64,
    slot: Arc<DumpSlot>,
    dump: oneshot::Receiver<Result<CoreDump, CoreDumpError>>,
}

impl CoreDumpWait {
    /// Resolves when a guest of the partition was stopped and dumped.
    ///
    /// # Errors
    /// Where it has too much memory, or there will be no dump any more.
    pub async fn wait(mut self) -> Result<CoreDump, CoreDumpError> {
        let dump = (&mut self.dump).await;
        dump.unwrap_or_else(|_| Err(CoreDumpError::Gone { id: self.id.clone() }))
    }
}

impl Drop for CoreDumpWait {
    fn drop(&mut self) {
        let mut asker = self.slot.asker();
        if asker.number == self.number {
            self.slot.forget(&mut asker);
        }
    }
}

impl DumpSlot {
    fn asker(&self) -> MutexGuard<'_, Asker> {
        self.asker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget(&self, asker: &mut Asker) -> Option<(Reply, Arc<Semaphore>)> {
        self.after_nanos.store(NOT_WANTED, Relaxed);
        asker.reply.take()
    }

    /// Asks for the dump of the next guest that is stopped. One that computes for `after` or up to its deadline is
    /// stopped for it.
    pub(crate) fn ask(
        self: &Arc<Self>,
        id: &ReplicaId,
        after: Option<Duration>,
        dumping: &Arc<Semaphore>,
    ) -> Result<CoreDumpWait, CoreDumpError> {
        let mut asker = self.asker();
        if asker.reply.is_some() {
            return Err(CoreDumpError::Busy { id: id.clone() });
        }
        let (reply, dump) = oneshot::channel();
        asker.number += 1;
        asker.reply = Some((reply, Arc::clone(dumping)));
        let nanos = after.map_or(u64::MAX, |after| u64::try_from(after.as_nanos()).unwrap_or(u64::MAX));
        self.after_nanos.store(nanos.max(NOT_WANTED + 1), Relaxed);
        Ok(CoreDumpWait { id: id.clone(), number: asker.number, slot: Arc::clone(self), dump })
    }

    /// Whether somebody waits for a dump.
    pub(crate) fn is_wanted(&self) -> bool {
        self.after_nanos.load(Relaxed) != NOT_WANTED
    }

    /// Whether a guest that has run for this long is to be stopped now for a dump, or because its deadline comes.
    pub(crate) fn is_due(&self, ran: Duration, is_late: bool) -> bool {
        let after = self.after_nanos.load(Relaxed);
        if after == NOT_WANTED {
            return false;
        }
        // Where the host makes another dump, none would come of it.
        (is_late || ran >= Duration::from_nanos(after))
            && self.asker().reply.as_ref().is_some_and(|(_, places)| places.available_permits() > 0)
    }

    /// Who is to get the dump of a guest that was stopped. `None` where nobody asks, or the host makes another dump:
    /// then the next one will do.
    pub(crate) fn take(&self) -> Option<DumpOrder> {
        if self.after_nanos.load(Relaxed) == NOT_WANTED {
            return None;
        }
        let mut asker = self.asker();
        let (_, places) = asker.reply.as_ref()?;
        let dumping = Arc::clone(places).try_acquire_owned().ok()?;
        let (reply, _) = self.forget(&mut asker)?;
        Some(DumpOrder { reply, dumping })
    }

    /// Nobody gets a dump of this partition any more.
    pub(crate) fn close(&self) {
        let mut asker = self.asker();
        self.forget(&mut asker);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn slot() -> (Arc<DumpSlot>, Arc<Semaphore>, ReplicaId) {
        (Arc::default(), Arc::new(Semaphore::new(MAX_DUMPING)), "d/g/0".parse().expect("an id"))
    }

    #[test]
    fn nothing_is_dumped_for_nobody_or_for_who_has_gone() {
        let (slot, places, id) = slot();
        assert!(slot.take().is_none() && !slot.is_due(HOUR, true));
        let wait = slot.ask(&id, Some(Duration::ZERO), &places).expect("nobody else waits");
        assert!(slot.is_due(Duration::from_millis(1), false));
        drop(wait);
        assert!(slot.take().is_none() && !slot.is_due(HOUR, true));
    }

    #[test]
    fn one_waits_at_a_time_and_who_leaves_late_takes_nobody_away() {
        let (slot, places, id) = slot();
        let first = slot.ask(&id, None, &places).expect("nobody else waits");
        let busy = slot.ask(&id, None, &places).expect_err("one waits");
        assert_eq!(busy, CoreDumpError::Busy { id: id.clone() });
        assert!(slot.take().is_some());
        let _second = slot.ask(&id, None, &places).expect("the first has its dump");
        drop(first);
        assert!(slot.take().is_some());
    }

    #[test]
    fn a_host_that_makes_a_dump_makes_no_other_and_the_asker_waits_on() {
        let (slot, places, id) = slot();
        let _wait = slot.ask(&id, None, &places).expect("nobody else waits");
        let other = Arc::clone(&places).try_acquire_owned().expect("free");
        assert!(slot.take().is_none());
        drop(other);
        assert!(slot.take().is_some());
    }

    #[test]
    fn a_guest_is_stopped_at_its_deadline_or_when_it_computes_for_longer_than_asked() {
        let (slot, places, id) = slot();
        let wait = slot.ask(&id, None, &places).expect("nobody else waits");
        assert!(!slot.is_due(HOUR, false));
        assert!(slot.is_due(Duration::ZERO, true));
        drop(wait);
        let _wait = slot.ask(&id, Some(HOUR), &places).expect("nobody else waits");
        assert!(!slot.is_due(HOUR / 2, false));
        assert!(slot.is_due(HOUR, false));
        let began = Instant::now();
        assert_eq!(stop_before(began, began + HOUR), began + HOUR - BEFORE_DEADLINE);
        assert_eq!(stop_before(began, began + BEFORE_DEADLINE), began + BEFORE_DEADLINE * 9 / 10);
    }

    #[tokio::test]
    async fn who_waits_for_a_partition_that_is_closed_is_told() {
        let (slot, places, id) = slot();
        let wait = slot.ask(&id, None, &places).expect("nobody else waits");
        slot.close();
        assert_eq!(wait.wait().await, Err(CoreDumpError::Gone { id }));
    }
}
