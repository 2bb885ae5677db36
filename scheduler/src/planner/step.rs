//! What a plan says.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use hvm_types::{DeploymentName, Epoch, Generation, HostId};

use super::WaitReason;
use crate::documents::{AssignmentDocument, GroupKey, OwnershipDocument};

/// What shall be, and why. Written in the order of the fields.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// The changed documents of groups. They must be durable before any of `assignments` is written: they
    /// hold the epochs that those use.
    pub ownership: BTreeMap<GroupKey, OwnershipDocument>,
    /// The changed documents of hosts.
    pub assignments: BTreeMap<HostId, AssignmentDocument>,
    /// What becomes of the deployments that were asked to stop.
    pub stops: Vec<Finish>,
    /// What happens to each replica, and what it waits for. Sorted by group, then by number.
    pub steps: Vec<PlanStep>,
    /// The replicas to which nothing happens, counted.
    pub kept: Vec<Kept>,
}

impl Plan {
    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.ownership.is_empty()
            && self.assignments.is_empty()
            && !self.stops.iter().any(|stop| matches!(stop, Finish::Done { .. }))
    }
}

/// One replica's next step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanStep {
    /// The replica's group.
    pub group: Arc<GroupKey>,
    /// Its number.
    pub index: u32,
    /// What happens.
    pub action: StepAction,
}

/// What happens to a replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepAction {
    /// It gets an owner.
    Place {
        /// Who.
        host: HostId,
        /// What it runs.
        generation: Generation,
        /// The number of the ownership.
        epoch: Epoch,
    },
    /// Its owner gets another generation to run.
    Update {
        /// The owner.
        host: HostId,
        /// What it ran.
        from: Generation,
        /// What it runs now.
        to: Generation,
    },
    /// A host no longer owns it.
    Remove {
        /// The host.
        host: HostId,
        /// Why.
        why: RemoveReason,
    },
    /// It is not as it should be, and nothing can be done now.
    Wait {
        /// Its owner, where it has one.
        host: Option<HostId>,
        /// What it waits for.
        reason: WaitReason,
    },
}

/// Why a host no longer owns a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RemoveReason {
    /// The deployment was asked to stop, or is gone.
    Stopped,
    /// The deployment does not have that group any more, or fewer copies of it.
    NotWanted,
    /// It moves to another host.
    Moved,
    /// Another host owns it with a higher epoch.
    Superseded,
}

impl fmt::Display for RemoveReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stopped => "the deployment is stopped",
            Self::NotWanted => "the deployment no longer has it",
            Self::Moved => "it moves to another host",
            Self::Superseded => "another host owns it with a higher epoch",
        })
    }
}

/// Replicas of a group on a host to which nothing happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The group.
    pub group: Arc<GroupKey>,
    /// The host.
    pub host: HostId,
    /// How many.
    pub replicas: u32,
}

/// Where the stop of a deployment stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finish {
    /// Nothing of it is left: its document goes.
    Done {
        /// The deployment.
        deployment: DeploymentName,
    },
    /// These hosts have not yet confirmed that it is gone.
    WaitsFor {
        /// The deployment.
        deployment: DeploymentName,
        /// The hosts.
        hosts: Vec<HostId>,
    },
}
