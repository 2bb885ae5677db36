//! In which layouts the state of a deployment's partitions is, as far as hosts have said. An update that failed leaves
//! them where they were, so that the version before can be deployed again.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use hvm_types::{Generation, HostId, ReplicaReport, ReplicaState};

use crate::documents::{DeploymentDocument, Ownership, World};
use crate::planner::Observation;

/// The oldest and the newest layout that a partition may be in. Of what nobody has said it is that of the generation that
/// is assigned, or the newest.
pub(super) fn of(
    deployment: &DeploymentDocument,
    world: &World,
    observed: &BTreeMap<HostId, Arc<Observation>>,
) -> RangeInclusive<u32> {
    let name = &deployment.current.spec.deployment;
    let mut found: Option<(u32, u32)> = None;
    let mut add = |generation: Generation| {
        let accepted = deployment.accepted(generation).unwrap_or(&deployment.current);
        let layout = accepted.state_schema;
        let (oldest, newest) = found.get_or_insert((layout, layout));
        (*oldest, *newest) = ((*oldest).min(layout), (*newest).max(layout));
    };
    for (host, record) in &world.hosts {
        let Some(assignments) = &record.assignments else { continue };
        let groups = assignments.value.groups.iter().filter(|(key, _)| key.deployment == *name);
        for (key, replicas) in groups {
            for (index, ownership) in replicas {
                let report = observed.get(host).and_then(|said| said.replica(key, *index));
                add(ownership_or_running(report, *ownership));
                // It may be migrated just now.
                if report.is_some_and(|report| !has_failed(report)) {
                    add(ownership.generation);
                }
            }
        }
    }
    let newest = deployment.current.state_schema;
    found.map_or(newest..=newest, |(oldest, newest)| oldest..=newest)
}

fn ownership_or_running(report: Option<&ReplicaReport>, ownership: Ownership) -> Generation {
    match report {
        Some(report) if report.epoch == ownership.epoch => report.generation,
        _ => ownership.generation,
    }
}

/// Whether it serves on because what it is told failed.
fn has_failed(report: &ReplicaReport) -> bool {
    report.state.serves() && matches!(report.next, Some((_, ReplicaState::Failed { .. })))
}
