//! What an operator asks for: the deployment file's content as types. Reading the file is
//! [`crate::deployment_file`]'s work.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    ByteSize, Capability, CpuMhz, DeploymentName, Environment, GroupName, HistorySpec, IdempotencySpec,
    ImageRef, JobName, PackageName, Period, RetentionSpec, TaskName,
};

/// A deployment: an image, the jobs that run its packages, and the routes that reach them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeploymentSpec {
    /// Its name; a second file with the same name changes the first deployment.
    pub deployment: DeploymentName,
    /// The image: a file ending in `.aimg`, or `name@sha256:…`.
    pub image: ImageRef,
    /// What runs.
    pub jobs: Vec<JobSpec>,
    /// How requests reach it.
    #[serde(default)]
    pub routes: Vec<RouteSpec>,
}

/// A job: groups that are declared together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JobSpec {
    /// Its name, unique in the deployment.
    pub name: JobName,
    /// Its groups.
    pub groups: Vec<GroupSpec>,
}

/// A group: tasks that always run together on one host, in several copies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GroupSpec {
    /// Its name, unique in the deployment.
    pub name: GroupName,
    /// Number of stateful shards, 1 to 65,536. Not together with `replicas`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partitions: Option<u32>,
    /// Number of stateless copies, 1 to 65,536; 1 where neither is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<u32>,
    /// What each copy runs.
    pub tasks: Vec<TaskSpec>,
    /// Which of its records each partition keeps whole; none where it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history: Option<HistorySpec>,
    /// How long each partition keeps answers under idempotency keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency: Option<IdempotencySpec>,
    /// How a new version replaces the old one.
    #[serde(default)]
    pub update: UpdatePolicy,
    /// Which hosts may run it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub constraints: Vec<Constraint>,
}

impl GroupSpec {
    /// The most copies a group may have.
    pub const MAX_COPIES: u32 = 65_536;

    /// Whether its copies are partitions, with state of their own.
    #[must_use]
    pub const fn is_partitioned(&self) -> bool {
        self.partitions.is_some()
    }

    /// What its partitions keep of their past.
    #[must_use]
    pub const fn retention(&self) -> RetentionSpec {
        RetentionSpec { history: self.history, idempotency: self.idempotency }
    }

    /// Number of copies.
    #[must_use]
    pub fn copies(&self) -> u32 {
        self.partitions.or(self.replicas).unwrap_or(1)
    }
}

/// One thing to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TaskSpec {
    /// Its name, unique in the group.
    pub name: TaskName,
    /// What runs it.
    pub driver: Driver,
    /// What to run.
    pub config: TaskConfig,
    /// What the guest reads through `wasi:config` and, in WASI's environment, `wasi:cli`.
    #[serde(default, skip_serializing_if = "Environment::is_unset")]
    pub env: Environment,
    /// What it may use.
    #[serde(default)]
    pub resources: Resources,
    /// What it may reach.
    #[serde(default)]
    pub grants: Grants,
    /// Whether instances serve one request or many.
    #[serde(default)]
    pub instance: InstancePolicy,
    /// What its guests are metered by beside their processor time.
    #[serde(default, skip_serializing_if = "Metering::is_time")]
    pub metering: Metering,
}

/// What a task runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TaskConfig {
    /// The package of the image.
    pub package: PackageName,
}

/// What runs a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Driver {
    /// A package of the image, in the HVM.
    AppPartition,
}

/// Limits of one copy. The same block means the same in dev and in production.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Resources {
    /// What the copy may use of the host's processors, in MHz: it is set aside when the copy is placed, and it is the
    /// most that the copy gets. Where it is missing, nothing is set aside and nothing is held back: all such copies of
    /// a host take turns at what the others leave.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<CpuMhz>,
    /// Megabytes (of 1024² bytes) for linear memories, tables and what the host holds for the copy.
    pub memory: u32,
    /// Longest time a request may take, from its arrival at the partition to its last byte.
    pub deadline: Period,
    /// Longest time that the migration of a partition's state may take, from its turn among the commands to its commit.
    #[serde(skip_serializing_if = "is_usual_migration_deadline")]
    pub migration_deadline: Period,
    /// Requests that may wait; one more is answered with 503.
    pub mailbox: u32,
    /// Longest request body; a longer one is answered with 413.
    pub request_body: ByteSize,
    /// Longest response body of a command.
    pub response_body: ByteSize,
    /// Most durable state of one partition; a command that would exceed it is answered with 507.
    pub storage: ByteSize,
}

impl Resources {
    /// The share of a host's processors that is set aside for a copy.
    #[must_use]
    pub fn reserved_cpu(&self) -> CpuMhz {
        self.cpu.unwrap_or(CpuMhz(0))
    }
}

const MIGRATION_DEADLINE: Period = Period(std::time::Duration::from_secs(60));

fn is_usual_migration_deadline(deadline: &Period) -> bool {
    *deadline == MIGRATION_DEADLINE
}

impl Default for Resources {
    fn default() -> Self {
        Self {
            cpu: None,
            memory: 64,
            deadline: Period(std::time::Duration::from_secs(10)),
            migration_deadline: MIGRATION_DEADLINE,
            mailbox: 256,
            request_body: ByteSize::mib(8),
            response_body: ByteSize::mib(8),
            storage: ByteSize::mib(1024),
        }
    }
}

/// What a task may reach beyond plain WASI. A capability that the image requests and that is missing here
/// is not granted, and the image is refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Grants {
    /// The `wasi:keyvalue` stores it may open; a partition has `default`.
    pub keyvalue: Vec<String>,
    /// Whether it may read `env` through `wasi:config`.
    pub config: bool,
    /// Whether it may write to its log through `wasi:logging`.
    pub logging: bool,
    /// Origins (`scheme://host[:port]`) that it may call.
    pub http: Vec<String>,
    /// Whether commands may call them too. A retried command repeats its calls.
    pub http_in_commands: bool,
}

impl Grants {
    /// The capabilities that these grants amount to.
    #[must_use]
    pub fn capabilities(&self) -> Vec<Capability> {
        let granted = [
            (Capability::Keyvalue, !self.keyvalue.is_empty()),
            (Capability::Config, self.config),
            (Capability::Logging, self.logging),
            (Capability::OutgoingHttp, !self.http.is_empty()),
        ];
        granted.into_iter().filter_map(|(capability, granted)| granted.then_some(capability)).collect()
    }
}

/// How long an instance lives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum InstancePolicy {
    /// It serves one request after another; its memory is a cache.
    #[default]
    Reuse,
    /// Each request has a new one.
    PerRequest,
}

/// What guests are metered by.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Metering {
    /// Their processor time.
    #[default]
    Time,
    /// Processor time, and fuel: the same for each replay of the same requests. Guests run slower.
    Deterministic,
}

impl Metering {
    /// Both, in the order of their declaration.
    pub const ALL: [Self; 2] = [Self::Time, Self::Deterministic];

    /// Its word in deployment files and labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Time => "time",
            Self::Deterministic => "deterministic",
        }
    }

    /// Whether it is the default, which is not written.
    #[must_use]
    pub const fn is_time(&self) -> bool {
        matches!(self, Self::Time)
    }
}

/// How a new generation replaces the old one, copy by copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UpdatePolicy {
    /// Copies that may change at the same time, at least 1.
    pub max_parallel: u32,
}

impl Default for UpdatePolicy {
    fn default() -> Self {
        Self { max_parallel: 8 }
    }
}

/// A condition on the attributes of a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Constraint {
    /// The attribute, such as `zone`.
    pub attribute: String,
    /// How it is compared.
    pub operator: ConstraintOperator,
    /// With what.
    pub value: Vec<String>,
}

/// How a host's attribute is compared with a constraint's values. A host without the attribute satisfies
/// only `not-in`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ConstraintOperator {
    /// It is one of the values.
    In,
    /// It is none of the values.
    NotIn,
}

/// Which requests reach which group, and which of its partitions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteSpec {
    /// Which requests.
    pub r#match: RouteMatch,
    /// The group that answers them.
    pub group: GroupName,
    /// Where the partition key stands; needed, and only allowed, where the group is partitioned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<KeySource>,
}

/// Which requests a route takes. Of several that match, the one with a host goes first, then the one with
/// the longest prefix.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteMatch {
    /// The `Host` header without its port, in lower case; any where it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The path's first segments: `/a` takes `/a` and `/a/b` but not `/ab`.
    pub prefix: String,
}

/// Where the partition key stands in a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum KeySource {
    /// The n-th segment of the path, from 1: of `/accounts/42`, segment 2 is `42`.
    PathSegment(u32),
    /// The value of a header.
    Header(String),
    /// The value of a query parameter.
    Query(String),
}
