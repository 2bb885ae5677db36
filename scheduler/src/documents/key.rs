//! Keys of documents. Names are DNS labels, so none holds a `/`.

use hvm_types::{DeploymentName, Digest, HostId};

use super::GroupKey;

pub(crate) const DEPLOYMENTS: &str = "deployments/";
pub(crate) const OWNERSHIP: &str = "ownership/";
pub(crate) const HOSTS: &str = "hosts/";
pub(crate) const IMAGES: &str = "images/";

pub(crate) const SPEC: &str = "spec";
pub(crate) const ALIVE: &str = "alive";
pub(crate) const DATA: &str = "data";
pub(crate) const ASSIGNMENTS: &str = "assignments";

pub(crate) fn deployment(name: &DeploymentName) -> String {
    format!("{DEPLOYMENTS}{name}")
}

pub(crate) fn ownership(group: &GroupKey) -> String {
    format!("{OWNERSHIP}{group}")
}

/// The `part` of a host: [`SPEC`], [`ALIVE`], [`DATA`] or [`ASSIGNMENTS`].
pub(crate) fn host(id: &HostId, part: &str) -> String {
    format!("{HOSTS}{id}/{part}")
}

pub(crate) fn image(manifest: Digest) -> String {
    format!("{IMAGES}{}", manifest.to_hex())
}
