//! A compiled component: its code, what it needs, and how much of the pool an instance of it takes.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use hvm_types::{Capability, Digest, Grants, Metering};
use wasmtime::Engine;

use super::imports;
use super::linked::{Linked, LinkedLater};
use crate::NotGranted;
use crate::blocks::Block;

/// A compiled component. Cloning it is cheap; all clones share the code.
#[derive(Clone)]
pub struct Module(pub(super) Arc<Compiled>);

pub(super) struct Compiled {
    pub(super) digest: Digest,
    pub(super) required: imports::Required,
    pub(super) first: Linked,
    /// The same code once more, where there are instances in the rest of the pool.
    pub(super) rest: LinkedLater,
    pub(super) permits: u32,
    pub(super) metering: Metering,
    pub(super) longest_way: u64,
}

impl Module {
    /// The digest of the component's bytes.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.0.digest
    }

    /// What it was compiled for.
    #[must_use]
    pub fn metering(&self) -> Metering {
        self.0.metering
    }

    /// The capabilities that its imports need.
    #[must_use]
    pub fn capabilities(&self) -> BTreeSet<Capability> {
        self.0.required.iter().map(|(_, capability)| *capability).collect()
    }

    /// Checks that everything it imports is granted.
    ///
    /// # Errors
    /// Names the first import that is not.
    pub fn check(&self, grants: &Grants) -> Result<(), NotGranted> {
        let granted = grants.capabilities();
        match self.0.required.iter().find(|(_, capability)| !granted.contains(capability)) {
            None => Ok(()),
            Some((import, capability)) => Err(NotGranted { import: import.clone(), capability: *capability }),
        }
    }

    /// The engine of the HVM that compiled it.
    pub(crate) fn engine(&self) -> &Engine {
        self.0.first.pre.engine()
    }

    /// What is instantiated in a block of the pool. The first time in the rest, its code is loaded there, beside what
    /// this thread does.
    pub(crate) async fn linked(&self, block: Block) -> Result<&Linked, String> {
        match block {
            Block::First => Ok(&self.0.first),
            Block::Rest => self.0.rest.get(&self.0.first).await,
        }
    }

    /// Whether it exports `hvm:app/handler`.
    pub(crate) fn is_typed(&self) -> bool {
        self.0.first.typed.is_some()
    }

    /// Most fuel of a way through one of its functions without a loop or a call.
    pub(crate) fn longest_way(&self) -> u64 {
        self.0.longest_way
    }

    /// Slots of the pool that one instance takes.
    pub(crate) fn permits(&self) -> u32 {
        self.0.permits
    }
}

impl fmt::Debug for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Module").field(&self.0.digest).finish()
    }
}
