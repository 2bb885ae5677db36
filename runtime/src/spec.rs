//! What an HVM is asked to run as one partition or one stateless replica.

use hvm_types::{
    Environment, Epoch, Generation, Grants, InstancePolicy, ReplicaId, Resources, RetentionSpec, StateSchema,
};

use crate::Module;

/// One copy of a group, complete: the HVM needs nothing else to run it.
#[derive(Debug, Clone)]
pub struct PartitionSpec {
    /// Which copy.
    pub id: ReplicaId,
    /// The ownership it runs in; every durable write carries it.
    pub epoch: Epoch,
    /// The generation of the deployment that it comes from.
    pub generation: Generation,
    /// The compiled component.
    pub module: Module,
    /// Whether it has durable state: a partition has, a stateless replica has not.
    pub stateful: bool,
    /// Which layouts of a partition's state it knows.
    pub schema: StateSchema,
    /// What a partition keeps of its past.
    pub retention: RetentionSpec,
    /// What the guest reads through `wasi:config`, where that is granted, and as its WASI environment.
    pub env: Environment,
    /// What it may use.
    pub resources: Resources,
    /// What it may reach.
    pub grants: Grants,
    /// Whether instances serve one request or many.
    pub instance: InstancePolicy,
}

impl PartitionSpec {
    /// A partition with state, its default limits and no grants.
    #[must_use]
    pub fn new(id: ReplicaId, module: Module) -> Self {
        Self {
            id,
            epoch: Epoch(1),
            generation: Generation(1),
            module,
            stateful: true,
            schema: StateSchema::default(),
            retention: RetentionSpec::default(),
            env: Environment::default(),
            resources: Resources::default(),
            grants: Grants::default(),
            instance: InstancePolicy::default(),
        }
    }
}
