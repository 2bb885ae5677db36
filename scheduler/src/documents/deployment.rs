//! What operators asked for.

use hvm_types::{AppName, DeploymentSpec, Digest, Generation, GroupSpec};
use serde::{Deserialize, Serialize};

use super::GroupKey;

/// A deployment: its newest accepted change, and the older ones that may still run somewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeploymentDocument {
    /// What is wanted now.
    pub current: Accepted,
    /// What was wanted before, newest first: always the one before `current`, and older ones while a host
    /// is assigned them. At most [`Self::MAX_EARLIER`].
    pub earlier: Vec<Accepted>,
    /// Set once it was asked to stop.
    pub stop: Option<StopOrder>,
}

/// One accepted change of a deployment. It never changes itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Accepted {
    /// Its number.
    pub generation: Generation,
    /// What was asked.
    pub spec: DeploymentSpec,
    /// The image's manifest.
    pub image: Digest,
    /// The image's app.
    pub app: AppName,
    /// Its version.
    pub version: semver::Version,
    /// Version of the layout of the state that it writes.
    pub state_schema: u32,
}

/// That a deployment shall stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StopOrder {
    /// Whether its durable state goes too.
    pub purge: bool,
}

impl Accepted {
    /// One of its groups.
    #[must_use]
    pub fn group(&self, name: &hvm_types::GroupName) -> Option<&GroupSpec> {
        self.groups().find(|group| group.name == *name)
    }

    /// All its groups.
    pub fn groups(&self) -> impl Iterator<Item = &GroupSpec> {
        self.spec.jobs.iter().flat_map(|job| &job.groups)
    }

    /// All its groups by key.
    pub fn keyed_groups(&self) -> impl Iterator<Item = (GroupKey, &GroupSpec)> {
        self.groups().map(|group| {
            (GroupKey { deployment: self.spec.deployment.clone(), group: group.name.clone() }, group)
        })
    }
}

impl DeploymentDocument {
    /// Most earlier changes that are kept. A replica that runs an older one goes on running it; its host is
    /// told the current one as soon as it can be told anything.
    pub const MAX_EARLIER: usize = 8;

    /// The change with this number, if it is still kept.
    #[must_use]
    pub fn accepted(&self, generation: Generation) -> Option<&Accepted> {
        std::iter::once(&self.current).chain(&self.earlier).find(|accepted| accepted.generation == generation)
    }
}
