//! What is there on this host, as the plan sees it: a snapshot, no handles.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hvm_types::{
    Assignment, Capability, Digest, Epoch, Generation, Metering, PackageName, ReplicaId, ReplicaState,
    RetentionSpec, TaskSpec,
};

use super::backoff::Failure;

/// Everything the plan compares the document with.
#[derive(Debug, Clone, Default)]
pub(crate) struct Observed {
    /// Every replica that runs, or that a step was tried for.
    pub(crate) replicas: BTreeMap<ReplicaId, ObservedReplica>,
    /// Every component that is being prepared, is ready, or could not be.
    pub(crate) modules: BTreeMap<ModuleKey, ModuleStatus>,
    /// Replicas with durable state on this host; `None` until they were listed, which is only done where the
    /// document purges something.
    pub(crate) stored: Option<BTreeSet<ReplicaId>>,
}

/// One replica on this host.
#[derive(Debug, Clone, Default)]
pub(crate) struct ObservedReplica {
    /// What runs of it.
    pub(crate) running: Option<Running>,
    /// What the HVM said last of it.
    pub(crate) seen: Option<ReplicaState>,
    /// The step of this replica that is under way.
    pub(crate) activity: Option<Activity>,
    /// Why the HVM gave up on what runs, where it did: it must be closed and opened again.
    pub(crate) broken: Option<StepFailure>,
    /// The failure of its last step, and what the step wanted.
    pub(crate) failure: Option<(Wanted, Failure)>,
    /// The newer epoch, where that failure was that another host owns it.
    pub(crate) fenced: Option<Epoch>,
}

impl ObservedReplica {
    pub(crate) const fn is_busy(&self) -> bool {
        self.activity.is_some()
    }

    /// Whether requests may be passed to it: also while its next generation is prepared or put in place.
    pub(crate) const fn takes_requests(&self) -> bool {
        self.running.is_some() && self.broken.is_none() && !matches!(self.activity, Some(Activity::Closing))
    }
}

/// Why something failed, for people, and the newer epoch where the replica was fenced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StepFailure {
    pub(crate) reason: String,
    pub(crate) fenced_by: Option<Epoch>,
}

/// A step that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Activity {
    Closing,
    Purging,
    Opening,
    Upgrading,
}

/// What runs of a replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Running {
    pub(crate) generation: Generation,
    pub(crate) epoch: Epoch,
    pub(crate) image: Digest,
    pub(crate) stateful: bool,
    pub(crate) retention: RetentionSpec,
    pub(crate) task: Arc<TaskSpec>,
}

impl Running {
    /// What runs once the assignment is done.
    pub(crate) fn of(assignment: &Assignment) -> Self {
        Self {
            generation: assignment.generation,
            epoch: assignment.epoch,
            image: assignment.image,
            stateful: assignment.stateful,
            retention: assignment.retention,
            task: Arc::clone(&assignment.task),
        }
    }

    /// The assignment that this replica runs by.
    pub(crate) fn assignment(&self, replica: &ReplicaId) -> Assignment {
        Assignment {
            replica: replica.clone(),
            generation: self.generation,
            epoch: self.epoch,
            image: self.image,
            stateful: self.stateful,
            retention: self.retention,
            task: Arc::clone(&self.task),
        }
    }
}

/// What a step wanted: when the document wants something else, its failure no longer counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// To run this.
    Run { generation: Generation, epoch: Epoch, image: Digest },
    /// To be gone.
    Gone,
}

impl Wanted {
    pub(crate) fn run(assignment: &Assignment) -> Self {
        Self::Run { generation: assignment.generation, epoch: assignment.epoch, image: assignment.image }
    }
}

/// A component as one deployment may use it. What is granted belongs to the key, because a component that
/// needs more than its deployment grants is refused before it is compiled.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ModuleKey {
    pub(crate) image: Digest,
    pub(crate) package: PackageName,
    pub(crate) granted: Vec<Capability>,
    pub(crate) metering: Metering,
}

impl ModuleKey {
    pub(crate) fn of(assignment: &Assignment) -> Self {
        Self {
            image: assignment.image,
            package: assignment.task.config.package.clone(),
            granted: assignment.task.grants.capabilities(),
            metering: assignment.task.metering,
        }
    }
}

/// How far a component is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ModuleStatus {
    /// Its image is being fetched.
    Pulling,
    /// Signature, digests and capabilities are being checked.
    Verifying,
    /// It is being compiled.
    Compiling,
    /// It can be run.
    Ready,
    /// It can't be run.
    Failed(Failure),
}
