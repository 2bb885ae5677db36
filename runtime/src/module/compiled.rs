//! A compiled component: its code, what it needs, and how much of the pool an instance of it takes.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use hvm_types::{Capability, Digest, Grants};
use wasmtime::component::InstancePre;
use wasmtime_wasi_http::p2::bindings::ProxyIndices;

use super::imports;
use crate::NotGranted;
use crate::guest::{GuestState, TypedIndices};

/// A compiled component. Cloning it is cheap; all clones share the code.
#[derive(Clone)]
pub struct Module(pub(super) Arc<Compiled>);

pub(super) struct Compiled {
    pub(super) digest: Digest,
    pub(super) required: imports::Required,
    pub(super) pre: InstancePre<GuestState>,
    /// Where its exports are, of those that it has.
    pub(super) http: Option<ProxyIndices>,
    pub(super) typed: Option<TypedIndices>,
    pub(super) permits: u32,
}

impl Module {
    /// The digest of the component's bytes.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.0.digest
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

    pub(crate) fn pre(&self) -> &InstancePre<GuestState> {
        &self.0.pre
    }

    pub(crate) fn http(&self) -> Option<&ProxyIndices> {
        self.0.http.as_ref()
    }

    pub(crate) fn typed(&self) -> Option<&TypedIndices> {
        self.0.typed.as_ref()
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
