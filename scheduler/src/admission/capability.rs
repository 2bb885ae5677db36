//! What an image asks for beside what a deployment grants.

use std::collections::BTreeMap;

use hvm_api::v1;
use hvm_types::{Capability, DeploymentSpec, Grants, ImageConfig, PackageName};

/// The requested capabilities that are not granted, each with the line that grants it.
pub(super) fn ungranted(requested: &[Capability], grants: &Grants) -> Vec<(Capability, &'static str)> {
    let granted = grants.capabilities();
    let missing = requested.iter().filter(|capability| !granted.contains(capability));
    missing.map(|capability| (*capability, grant_line(*capability))).collect()
}

const fn grant_line(capability: Capability) -> &'static str {
    match capability {
        Capability::Keyvalue => "keyvalue: [default]",
        Capability::Config => "config: true",
        Capability::Logging => "logging: true",
        Capability::OutgoingHttp => "http: [\"https://HOST\"]",
    }
}

/// Per package that the deployment uses: each capability that is asked for or granted. Granted is what all
/// its tasks grant.
pub(crate) fn capability_lines(spec: &DeploymentSpec, config: &ImageConfig) -> Vec<v1::CapabilityLine> {
    let mut grants: BTreeMap<&PackageName, Vec<&Grants>> = BTreeMap::new();
    for task in spec.jobs.iter().flat_map(|job| &job.groups).flat_map(|group| &group.tasks) {
        grants.entry(&task.config.package).or_default().push(&task.grants);
    }
    let mut lines = Vec::new();
    for (package, grants) in grants {
        for capability in Capability::ALL {
            let line = v1::CapabilityLine {
                package: package.to_string(),
                capability: capability.to_string(),
                requested: config.packages.get(package).is_some_and(|p| p.capabilities.contains(&capability)),
                granted: grants.iter().all(|grants| grants.capabilities().contains(&capability)),
            };
            if line.requested || line.granted {
                lines.push(line);
            }
        }
    }
    lines
}
