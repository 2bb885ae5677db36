//! The domain's words as types: names, digests, epochs, units, what was asked (`…Spec`) and what was
//! observed (`…Status`).
//!
//! Nothing here does I/O, reads a clock or draws a random number. Wire messages are in `hvm-api`; they are
//! converted to these types at the edge and go no further.

mod assignment;
mod assignment_list;
mod capability;
pub mod deployment_file;
mod digest;
mod environment;
mod image;
mod meter;
mod name;
mod number;
mod origin;
mod retention;
mod spec;
mod state_schema;
mod status;
mod unit;

pub use assignment::{
    Assignment, GroupPlacement, HostDocument, HostSpec, PartitionOwner, RouteTarget, RoutingTable,
};
pub use assignment_list::TaskNumbers;
pub use capability::{Capability, ParseCapabilityError};
pub use digest::{Digest, ParseDigestError};
pub use environment::Environment;
pub use image::{
    BlobRef, ImageConfig, ImageDocument, ImageRef, PackageConfig, ParseImageRefError, StaticFile,
};
pub use meter::{Meter, RequestOutcome};
pub use name::{
    AppName, DeploymentName, GroupName, HostId, InvalidName, JobName, PackageName, ParseReplicaIdError,
    ReplicaId, StoreId, TaskName,
};
pub use number::{Epoch, Generation, Sequence};
pub use origin::{Origin, OriginHost, ParseOriginError, Scheme};
pub use retention::{HistorySpec, IdempotencySpec, RetentionSpec};
pub use spec::{
    Constraint, ConstraintOperator, DeploymentSpec, Driver, Grants, GroupSpec, InstancePolicy, JobSpec,
    KeySource, Metering, Resources, RouteMatch, RouteSpec, TaskConfig, TaskSpec, UpdatePolicy,
};
pub use state_schema::{SchemaError, StateSchema};
pub use status::{DeploymentStatus, GroupStatus, HostStatus, ReplicaReport, ReplicaState, ReplicaStatus};
pub use unit::{ByteSize, CpuMhz, ParseUnitError, Period};
