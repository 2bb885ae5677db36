//! What was observed: the state of replicas, groups, deployments and hosts.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{DeploymentName, Digest, Epoch, Generation, GroupName, HostId, HostSpec, ReplicaId};

/// Where a replica is in its life.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum ReplicaState {
    /// A host was chosen.
    Assigned,
    /// Its image is being fetched.
    Pulling,
    /// Signature, digests and capabilities are being checked.
    Verifying,
    /// Its component is being compiled.
    Compiling,
    /// Its durable state is being opened.
    Recovering,
    /// It serves.
    Ready,
    /// It serves, without an instance in memory until the next request.
    Hibernated,
    /// It finishes what it has and takes nothing new.
    Draining,
    /// It is gone from the host.
    Stopped,
    /// It does not run, and this is why. It is tried again.
    Failed {
        /// What went wrong and what to do.
        reason: String,
    },
    /// Another host owns it since this epoch.
    Fenced {
        /// The newer epoch.
        epoch: Epoch,
    },
}

impl ReplicaState {
    /// The word for it, without its details.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Assigned => "assigned",
            Self::Pulling => "pulling",
            Self::Verifying => "verifying",
            Self::Compiling => "compiling",
            Self::Recovering => "recovering",
            Self::Ready => "ready",
            Self::Hibernated => "hibernated",
            Self::Draining => "draining",
            Self::Stopped => "stopped",
            Self::Failed { .. } => "failed",
            Self::Fenced { .. } => "fenced",
        }
    }

    /// Whether requests are answered.
    #[must_use]
    pub const fn serves(&self) -> bool {
        matches!(self, Self::Ready | Self::Hibernated)
    }
}

impl fmt::Display for ReplicaState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed { reason } => write!(f, "failed: {reason}"),
            Self::Fenced { epoch } => write!(f, "fenced by epoch {epoch}"),
            other => f.write_str(other.word()),
        }
    }
}

/// What a host says of one replica. While a new generation is being prepared, the old one's state stands
/// in `state` and the new one's in `next`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaReport {
    /// The replica.
    pub replica: ReplicaId,
    /// The generation that runs.
    pub generation: Generation,
    /// The epoch it runs in.
    pub epoch: Epoch,
    /// The image that runs.
    pub image: Digest,
    /// Its state.
    pub state: ReplicaState,
    /// The generation being prepared beside it, and how far it is.
    pub next: Option<(Generation, ReplicaState)>,
}

/// A replica as the scheduler sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaStatus {
    /// Its number.
    pub index: u32,
    /// The host it is assigned to; `None` while it waits.
    pub host: Option<HostId>,
    /// The generation it should run.
    pub wanted: Generation,
    /// What its host said last; `None` where it said nothing yet.
    pub observed: Option<ReplicaReport>,
    /// Why it waits, where it does.
    pub waits: Option<String>,
}

/// A group of a deployment as the scheduler sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupStatus {
    /// The group.
    pub group: GroupName,
    /// Whether it is partitioned.
    pub partitioned: bool,
    /// All its replicas, by number.
    pub replicas: Vec<ReplicaStatus>,
}

/// A deployment as the scheduler sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeploymentStatus {
    /// Its name.
    pub deployment: DeploymentName,
    /// The newest accepted generation.
    pub generation: Generation,
    /// The app's name and version at that generation, such as `ledger 1.0.0`.
    pub app: String,
    /// The image of that generation.
    pub image: Digest,
    /// Whether it was asked to stop.
    pub stopping: bool,
    /// Its groups.
    pub groups: Vec<GroupStatus>,
}

/// A host as the scheduler sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostStatus {
    /// What it said of itself.
    pub spec: HostSpec,
    /// Whether its lease holds.
    pub alive: bool,
    /// Number of replicas assigned to it.
    pub assigned: u32,
}
