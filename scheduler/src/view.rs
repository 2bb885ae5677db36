//! The documents as others see them: as the planner's input, as the routing table, as the document of one
//! host. All pure.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use hvm_types::{
    Assignment, Generation, GroupPlacement, HostDocument, HostId, PartitionOwner, RouteTarget, RoutingTable,
    TaskSpec,
};

use crate::documents::{AssignmentDocument, GroupKey, World};
use crate::planner::{HostInput, Observation, PlanInput};

static NOTHING: LazyLock<AssignmentDocument> = LazyLock::new(AssignmentDocument::default);

/// The documents and what hosts said, for the planner.
pub(crate) fn plan_input<'a>(
    world: &'a World,
    observed: &'a BTreeMap<HostId, Arc<Observation>>,
) -> PlanInput<'a> {
    let host = |(id, record): (&'a HostId, &'a crate::documents::HostRecord)| {
        Some(HostInput {
            spec: &record.spec.as_ref()?.value,
            alive: record.alive.is_some(),
            assignments: record.assignments.as_ref().map_or(&*NOTHING, |document| &document.value),
            version: record.assignments.as_ref().map_or(0, |document| document.revision.0),
            observed: observed.get(id).map(|observation| &**observation),
        })
    };
    PlanInput {
        deployments: world.deployments.iter().map(|(name, document)| (name, &*document.value)).collect(),
        ownership: world.ownership.iter().map(|(key, document)| (key, &*document.value)).collect(),
        hosts: world.hosts.iter().filter_map(host).collect(),
    }
}

/// The owner of each replica of the groups in `keys`: of two, the one with the higher epoch.
fn owners(
    world: &World,
    keys: &BTreeMap<GroupKey, u32>,
) -> BTreeMap<GroupKey, BTreeMap<u32, PartitionOwner>> {
    let mut all: BTreeMap<GroupKey, BTreeMap<u32, PartitionOwner>> = BTreeMap::new();
    for (host, record) in &world.hosts {
        let Some(assignments) = &record.assignments else { continue };
        for (key, replicas) in &assignments.value.groups {
            let Some(copies) = keys.get(key) else { continue };
            let owners = all.entry(key.clone()).or_default();
            for (index, ownership) in replicas.range(..copies) {
                let owner = PartitionOwner { index: *index, host: host.clone(), epoch: ownership.epoch };
                let known = owners.entry(*index).or_insert_with(|| owner.clone());
                if known.epoch < owner.epoch {
                    *known = owner;
                }
            }
        }
    }
    all
}

/// Where every request goes.
pub(crate) fn routing_table(world: &World) -> RoutingTable {
    let mut table = RoutingTable::default();
    for (host, record) in &world.hosts {
        if let Some(spec) = &record.spec {
            table.hosts.insert(host.clone(), spec.value.ingress.clone());
        }
    }
    let mut keys = BTreeMap::new();
    let mut partitioned = BTreeMap::new();
    for (name, document) in world.deployments.iter().filter(|(_, document)| document.value.stop.is_none()) {
        let current = &document.value.current;
        for route in &current.spec.routes {
            table.routes.push(RouteTarget { deployment: name.clone(), route: route.clone() });
            if let Some(group) = current.group(&route.group) {
                let key = GroupKey { deployment: name.clone(), group: group.name.clone() };
                partitioned.insert(key.clone(), group.is_partitioned());
                keys.insert(key, group.copies());
            }
        }
    }
    table.routes.sort_by(|a, b| {
        let order = |target: &RouteTarget| {
            let matched = &target.route.r#match;
            (Reverse(matched.host.clone()), Reverse(matched.prefix.len()), matched.prefix.clone())
        };
        order(a).cmp(&order(b)).then_with(|| a.deployment.cmp(&b.deployment))
    });
    let mut owners = owners(world, &keys);
    for (key, copies) in keys {
        let owners = owners.remove(&key).unwrap_or_default().into_values().collect();
        let partitioned = partitioned.get(&key).copied().unwrap_or_default();
        let GroupKey { deployment, group } = key;
        table.groups.push(GroupPlacement { deployment, group, partitioned, copies, owners });
    }
    table
}

/// Everything one host has to know; `None` where no such host joined.
pub(crate) fn host_document(world: &World, routing: &RoutingTable, host: &HostId) -> Option<HostDocument> {
    let record = world.hosts.get(host)?;
    record.spec.as_ref()?;
    let mut document = HostDocument { routing: routing.clone(), ..HostDocument::default() };
    let Some(assignments) = &record.assignments else { return Some(document) };
    document.version = assignments.revision.0;
    for (key, replicas) in &assignments.value.groups {
        let Some(deployment) = world.deployments.get(&key.deployment) else { continue };
        let mut tasks: BTreeMap<Generation, Arc<TaskSpec>> = BTreeMap::new();
        for (index, ownership) in replicas {
            if assignments.value.waits_for(key, *index).is_some() {
                continue;
            }
            // A generation so old that it is not kept any more gives way to the current one.
            let current = &deployment.value.current;
            let accepted = deployment.value.accepted(ownership.generation).unwrap_or(current);
            let Some(group) = accepted.group(&key.group) else { continue };
            let Some(task) = group.tasks.first() else { continue };
            document.assignments.push(Assignment {
                replica: key.replica(*index),
                generation: accepted.generation,
                epoch: ownership.epoch,
                image: accepted.image,
                stateful: group.is_partitioned(),
                retention: group.retention(),
                task: Arc::clone(tasks.entry(accepted.generation).or_insert_with(|| Arc::new(task.clone()))),
            });
        }
    }
    for (key, indexes) in &assignments.value.purge {
        document.purge.extend(indexes.iter().map(|index| key.replica(*index)));
    }
    Some(document)
}
