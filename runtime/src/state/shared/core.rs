//! The engine's core: what it owns, and the loops that run beside each other on one thread.
//!
//! ```text
//! inbox ──commits──▶ commit loop ──one segment──▶ log ──▶ material ──▶ answers
//!   └────openings──▶ take loop ──claims, fences, reading──┘ decisions
//!                    upkeep loop ──checkpoints, manifest, deletions
//! ```
//!
//! Only the commit loop appends to the log, and only after that is anything visible or answered.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use futures::future::select;
use hvm_types::{Epoch, HostId, ReplicaId};
use tokio::sync::{Notify, oneshot};

use super::image::Image;
use super::log::LogWriter;
use super::material::Material;
use super::names::{LogName, Nonce, Term};
use super::objects::Objects;
use super::segment::{Base, ImageRef};
use super::upkeep::Upkeep;
use crate::state::{CommitError, OpenError, ReadError};

/// What arrives from the handles. `None` means that nothing waits.
pub(super) struct Inbox<M: Material> {
    pub(super) receive: Box<dyn FnMut() -> Option<Work<M>>>,
    /// Notified after something was put in.
    pub(super) notify: Arc<Notify>,
}

/// Work for the core.
pub(super) enum Work<M: Material> {
    /// A record and its size in bytes.
    Commit(M::Commit, usize),
    Take(Asked<M>),
    /// All partitions in the store.
    List(ListAnswer<M>),
    /// What was queued before is done first.
    Stop,
}

/// A partition that is to be opened or removed.
pub(super) struct Asked<M: Material> {
    pub(super) id: ReplicaId,
    pub(super) want: Want<M>,
}

/// Called with what was asked for.
pub(super) type Answer<T> = Box<dyn FnOnce(T)>;

/// Called with all partitions.
pub(super) type ListAnswer<M> = Answer<Result<Vec<<M as Material>::Info>, ReadError>>;

pub(super) enum Want<M: Material> {
    Open(Epoch, Answer<Result<M::Handle, OpenError>>),
    Remove(Answer<Result<(), CommitError>>),
}

/// What a claim of this engine stands for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    Active,
    /// Taken away by this epoch. The state is kept until the taker has it.
    Fenced(Epoch),
    /// The partition was removed; its claims may still be there.
    Removed,
}

/// A partition with state in this engine's log.
#[derive(Debug, Clone)]
pub(super) struct Owned {
    pub(super) term: Term,
    pub(super) claim: Nonce,
    pub(super) standing: Standing,
    /// The claim with which its state came into this log.
    pub(super) origin: Nonce,
    /// The first segment with entries that its image does not cover.
    pub(super) from: u64,
    pub(super) image: Option<StoredImage>,
    /// Bytes of its newest image.
    pub(super) image_bytes: u64,
    /// Bytes in the log since.
    pub(super) logged_bytes: u64,
}

/// The newest image of a partition in the store.
#[derive(Debug, Clone, Copy)]
pub(super) struct StoredImage {
    pub(super) place: ImageRef,
    /// The claim it was made under.
    pub(super) claim: Nonce,
    pub(super) term: Term,
    /// The last segment that it covers.
    pub(super) through: u64,
}

/// A taking over that is ready to be written to the log.
pub(super) struct Decision {
    pub(super) id: ReplicaId,
    pub(super) term: Term,
    pub(super) claim: Nonce,
    /// The log that the claim names.
    pub(super) log: LogName,
    /// The claim under which this engine had the partition when the taking over began.
    pub(super) had: Option<Nonce>,
    pub(super) what: Decided,
    /// Absent where the one who asked was told that the end is unknown.
    pub(super) done: Option<oneshot::Sender<Result<(), Undone>>>,
}

pub(super) enum Decided {
    /// The base as it is written, and the image where it is not in this engine yet.
    Open(Base, Option<Image>),
    Remove,
}

impl Decision {
    /// Whether an earlier try with this claim, whose end was unknown, brought it about after all. What was committed
    /// since must not be lost to the older state that this one begins with.
    pub(super) fn is_done(&self, owned: &BTreeMap<ReplicaId, Owned>) -> bool {
        let is_open = |owned: &Owned| owned.claim == self.claim && owned.standing == Standing::Active;
        matches!(self.what, Decided::Open(..)) && owned.get(&self.id).is_some_and(is_open)
    }

    /// Whether what it continues, or begins anew, is still what this engine has.
    pub(super) fn builds_on(&self, owned: &BTreeMap<ReplicaId, Owned>) -> bool {
        let owned = owned.get(&self.id);
        match &self.what {
            Decided::Open(Base::Continue(claim), _) => owned.is_some_and(|owned| owned.claim == *claim),
            // Else an earlier try, whose end was unknown, was completed meanwhile: what was found may be older.
            Decided::Open(..) => owned.map(|owned| owned.claim) == self.had,
            Decided::Remove => true,
        }
    }
}

/// Why a decision did not come about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Undone {
    Fenced(Epoch),
    /// The log ended: claim again for the new one.
    LogEnded,
    Unavailable(String),
}

/// Numbers of the core that embedders may set.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    /// A batch is closed when its records have this many bytes.
    pub(super) batch_bytes: usize,
    /// Bytes in the log between two manifests, at least.
    pub(super) upkeep_bytes: u64,
}

/// Planted faults, to see that the simulation finds them.
#[cfg(feature = "planted-faults")]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Faults {
    pub(super) ignore_fences: bool,
    pub(super) acknowledge_early: bool,
    pub(super) reuse_epochs: bool,
    /// Take a free number of a log for its end.
    pub(super) trust_free_numbers: bool,
    /// Delete segments before the manifest without them is stored.
    pub(super) delete_early: bool,
}

pub(super) struct Table<M> {
    pub(super) material: M,
    pub(super) owned: BTreeMap<ReplicaId, Owned>,
    /// Claims of this log that were taken away.
    pub(super) ended: HashMap<Nonce, Epoch>,
    pub(super) log: LogName,
    /// The next segment's number: all before it were applied.
    pub(super) next_segment: u64,
    pub(super) upkeep: Upkeep,
}

/// One engine.
pub(super) struct Core<M: Material> {
    pub(super) objects: Objects,
    pub(super) host: HostId,
    pub(super) settings: Settings,
    pub(super) inbox: RefCell<Inbox<M>>,
    pub(super) wake: Arc<Notify>,
    pub(super) table: RefCell<Table<M>>,
    pub(super) asked: RefCell<VecDeque<Asked<M>>>,
    pub(super) lists: RefCell<Vec<ListAnswer<M>>>,
    pub(super) asked_notify: Notify,
    pub(super) decisions: RefCell<Vec<Decision>>,
    pub(super) upkeep_notify: Notify,
    pub(super) stopping: Cell<bool>,
    #[cfg(feature = "planted-faults")]
    pub(super) faults: Faults,
}

impl<M: Material> Core<M> {
    pub(super) fn new(
        objects: Objects,
        host: HostId,
        settings: Settings,
        inbox: Inbox<M>,
        material: M,
    ) -> Self {
        let log = LogName::new(&host, objects.surroundings().nonce());
        let wake = Arc::clone(&inbox.notify);
        let table = Table {
            material,
            owned: BTreeMap::new(),
            ended: HashMap::new(),
            log,
            next_segment: 0,
            upkeep: Upkeep::default(),
        };
        Self {
            objects,
            host,
            settings,
            inbox: RefCell::new(inbox),
            wake,
            table: RefCell::new(table),
            asked: RefCell::new(VecDeque::new()),
            lists: RefCell::new(Vec::new()),
            asked_notify: Notify::new(),
            decisions: RefCell::new(Vec::new()),
            upkeep_notify: Notify::new(),
            stopping: Cell::new(false),
            #[cfg(feature = "planted-faults")]
            faults: Faults::default(),
        }
    }

    /// Runs until it is told to stop.
    pub(super) async fn run(&self) {
        let log = self.table.borrow().log.clone();
        let commit = self.commit_loop(LogWriter::new(self.objects.clone(), log));
        let beside = async { futures::join!(self.take_loop(), self.upkeep_loop()) };
        drop(select(Box::pin(commit), Box::pin(beside)).await);
    }
}
