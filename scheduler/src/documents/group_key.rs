//! A group of a deployment, by name.

use std::fmt;
use std::str::FromStr;

use hvm_types::{DeploymentName, GroupName, InvalidName, ReplicaId};
use serde::{Deserialize, Serialize};

/// `deployment/group`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GroupKey {
    /// The deployment.
    pub deployment: DeploymentName,
    /// Its group.
    pub group: GroupName,
}

impl GroupKey {
    /// The group that a replica is a copy of.
    #[must_use]
    pub fn of(replica: &ReplicaId) -> Self {
        Self { deployment: replica.deployment.clone(), group: replica.group.clone() }
    }

    /// A replica of the group.
    #[must_use]
    pub fn replica(&self, index: u32) -> ReplicaId {
        ReplicaId { deployment: self.deployment.clone(), group: self.group.clone(), index }
    }
}

impl fmt::Display for GroupKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.deployment, self.group)
    }
}

impl FromStr for GroupKey {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let (deployment, group) = text.split_once('/').unwrap_or((text, ""));
        Ok(Self { deployment: deployment.parse()?, group: group.parse()? })
    }
}

impl TryFrom<String> for GroupKey {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, InvalidName> {
        text.parse()
    }
}

impl From<GroupKey> for String {
    fn from(key: GroupKey) -> Self {
        key.to_string()
    }
}
