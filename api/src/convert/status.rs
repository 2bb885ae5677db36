//! What was observed: replicas, groups, deployments, hosts.

use hvm_types::{
    DeploymentStatus, Epoch, Generation, GroupStatus, HostStatus, ReplicaReport, ReplicaState, ReplicaStatus,
};

use super::text::{each, parse, parse_optional, required};
use crate::{InvalidField, v1};

impl From<ReplicaState> for v1::ReplicaState {
    fn from(state: ReplicaState) -> Self {
        let word = state.word().to_owned();
        match state {
            ReplicaState::Failed { reason } => Self { word, reason, fencing_epoch: 0 },
            ReplicaState::Fenced { epoch } => Self { word, reason: String::new(), fencing_epoch: epoch.0 },
            _ => Self { word, reason: String::new(), fencing_epoch: 0 },
        }
    }
}

impl TryFrom<v1::ReplicaState> for ReplicaState {
    type Error = InvalidField;

    fn try_from(state: v1::ReplicaState) -> Result<Self, InvalidField> {
        Ok(match state.word.as_str() {
            "assigned" => Self::Assigned,
            "pulling" => Self::Pulling,
            "verifying" => Self::Verifying,
            "compiling" => Self::Compiling,
            "recovering" => Self::Recovering,
            "ready" => Self::Ready,
            "hibernated" => Self::Hibernated,
            "draining" => Self::Draining,
            "stopped" => Self::Stopped,
            "failed" => Self::Failed { reason: state.reason },
            "fenced" => Self::Fenced { epoch: Epoch(state.fencing_epoch) },
            word => {
                return Err(InvalidField::new("word", format!("`{word}` is no state of a replica")));
            }
        })
    }
}

impl From<ReplicaReport> for v1::ReplicaReport {
    fn from(report: ReplicaReport) -> Self {
        let (next_generation, next_state) = report.next.map(|(g, state)| (g.0, state.into())).unzip();
        Self {
            replica: report.replica.to_string(),
            generation: report.generation.0,
            epoch: report.epoch.0,
            image: report.image.to_string(),
            state: Some(report.state.into()),
            next_generation,
            next_state,
        }
    }
}

impl TryFrom<v1::ReplicaReport> for ReplicaReport {
    type Error = InvalidField;

    fn try_from(report: v1::ReplicaReport) -> Result<Self, InvalidField> {
        let next = match report.next_generation {
            Some(generation) => Some((Generation(generation), required("next_state", report.next_state)?)),
            None => None,
        };
        Ok(Self {
            replica: parse("replica", &report.replica)?,
            generation: Generation(report.generation),
            epoch: Epoch(report.epoch),
            image: parse("image", &report.image)?,
            state: required("state", report.state)?,
            next,
        })
    }
}

impl From<ReplicaStatus> for v1::ReplicaStatus {
    fn from(status: ReplicaStatus) -> Self {
        Self {
            index: status.index,
            host: status.host.map(String::from).unwrap_or_default(),
            wanted_generation: status.wanted.0,
            observed: status.observed.map(Into::into),
            waits: status.waits.unwrap_or_default(),
        }
    }
}

impl TryFrom<v1::ReplicaStatus> for ReplicaStatus {
    type Error = InvalidField;

    fn try_from(status: v1::ReplicaStatus) -> Result<Self, InvalidField> {
        let observed = status.observed.map(ReplicaReport::try_from).transpose();
        Ok(Self {
            index: status.index,
            host: parse_optional("host", &status.host)?,
            wanted: Generation(status.wanted_generation),
            observed: observed.map_err(|error| error.within("observed"))?,
            waits: Some(status.waits).filter(|reason| !reason.is_empty()),
        })
    }
}

impl From<GroupStatus> for v1::GroupStatus {
    fn from(status: GroupStatus) -> Self {
        Self {
            group: status.group.into(),
            partitioned: status.partitioned,
            replicas: status.replicas.into_iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<v1::GroupStatus> for GroupStatus {
    type Error = InvalidField;

    fn try_from(status: v1::GroupStatus) -> Result<Self, InvalidField> {
        Ok(Self {
            group: parse("group", &status.group)?,
            partitioned: status.partitioned,
            replicas: each("replicas", status.replicas)?,
        })
    }
}

impl From<DeploymentStatus> for v1::DeploymentStatus {
    fn from(status: DeploymentStatus) -> Self {
        Self {
            deployment: status.deployment.into(),
            generation: status.generation.0,
            app: status.app,
            image: status.image.to_string(),
            stopping: status.stopping,
            groups: status.groups.into_iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<v1::DeploymentStatus> for DeploymentStatus {
    type Error = InvalidField;

    fn try_from(status: v1::DeploymentStatus) -> Result<Self, InvalidField> {
        Ok(Self {
            deployment: parse("deployment", &status.deployment)?,
            generation: Generation(status.generation),
            app: status.app,
            image: parse("image", &status.image)?,
            stopping: status.stopping,
            groups: each("groups", status.groups)?,
        })
    }
}

impl From<HostStatus> for v1::HostStatus {
    fn from(status: HostStatus) -> Self {
        Self { spec: Some(status.spec.into()), alive: status.alive, assigned: status.assigned }
    }
}

impl TryFrom<v1::HostStatus> for HostStatus {
    type Error = InvalidField;

    fn try_from(status: v1::HostStatus) -> Result<Self, InvalidField> {
        Ok(Self { spec: required("spec", status.spec)?, alive: status.alive, assigned: status.assigned })
    }
}
