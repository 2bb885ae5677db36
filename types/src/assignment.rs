//! What the scheduler tells a host: which replicas it owns, and where every partition is found.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    CpuMhz, DeploymentName, Digest, Epoch, Generation, GroupName, HostId, ReplicaId, RetentionSpec,
    RouteSpec, StoreId, TaskSpec,
};

/// What a host says of itself when it joins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostSpec {
    /// Its name.
    pub id: HostId,
    /// `host:port` of its ingress, as other hosts reach it.
    pub ingress: String,
    /// `host:port` of its API.
    pub api: String,
    /// All its processors together.
    pub cpu: CpuMhz,
    /// Memory that partitions may use, in megabytes (of 1024² bytes).
    pub memory: u64,
    /// Attributes that constraints compare, such as `zone`.
    pub attributes: BTreeMap<String, String>,
    /// The store that the state of its partitions is in; `None` where it is on the host's own disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<StoreId>,
}

/// One replica on one host: complete, so that the agent needs nothing else to run it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// The replica.
    pub replica: ReplicaId,
    /// The generation of the deployment that this comes from.
    pub generation: Generation,
    /// The number of this ownership.
    pub epoch: Epoch,
    /// The image's manifest.
    pub image: Digest,
    /// Whether it has durable state.
    pub stateful: bool,
    /// What it keeps of its past, where it has state.
    pub retention: RetentionSpec,
    /// What it runs. Assignments that run the same share it.
    pub task: Arc<TaskSpec>,
}

/// Everything one host has to know. A host applies the newest and keeps it when the scheduler is gone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostDocument {
    /// What it owns, sorted by replica.
    #[serde(with = "crate::assignment_list")]
    pub assignments: Vec<Assignment>,
    /// Where requests go.
    pub routing: RoutingTable,
    /// Number of the newest change of `assignments` and `purge`. The host reports the version whose removals
    /// and purges it has finished; 0 where nothing was ever assigned.
    #[serde(default)]
    pub version: u64,
    /// Replicas whose durable state the host deletes, sorted. None of them is in `assignments`.
    #[serde(default)]
    pub purge: Vec<ReplicaId>,
}

/// The routes of all deployments and the owners of their replicas.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoutingTable {
    /// `host:port` of each host's ingress.
    pub hosts: BTreeMap<HostId, String>,
    /// All routes, in the order in which they are tried.
    pub routes: Vec<RouteTarget>,
    /// The groups that routes lead to.
    pub groups: Vec<GroupPlacement>,
}

/// A route and the deployment it belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteTarget {
    /// The deployment.
    pub deployment: DeploymentName,
    /// Its route.
    pub route: RouteSpec,
}

/// Who owns the replicas of one group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupPlacement {
    /// The deployment.
    pub deployment: DeploymentName,
    /// The group.
    pub group: GroupName,
    /// Whether a request's key decides which replica answers.
    pub partitioned: bool,
    /// Number of replicas asked for: what a key is hashed over.
    pub copies: u32,
    /// The placed ones.
    pub owners: Vec<PartitionOwner>,
}

/// Which host owns a replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionOwner {
    /// The replica's number.
    pub index: u32,
    /// Its host.
    pub host: HostId,
    /// The number of the ownership.
    pub epoch: Epoch,
}
