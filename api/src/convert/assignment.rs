//! Host documents: assignments and the routing table.

use std::sync::Arc;

use hvm_types::{
    Assignment, Epoch, Generation, GroupPlacement, HostDocument, HostSpec, PartitionOwner, RetentionSpec,
    RouteSpec, RouteTarget, RoutingTable, TaskNumbers, TaskSpec,
};

use super::text::{each, parse, parse_optional, required};
use crate::{InvalidField, v1};

impl From<HostSpec> for v1::HostSpec {
    fn from(host: HostSpec) -> Self {
        Self {
            id: host.id.into(),
            ingress: host.ingress,
            api: host.api,
            cpu_mhz: host.cpu.0,
            memory_mb: host.memory,
            attributes: host.attributes.into_iter().collect(),
            store: host.store.map(String::from).unwrap_or_default(),
        }
    }
}

impl TryFrom<v1::HostSpec> for HostSpec {
    type Error = InvalidField;

    fn try_from(host: v1::HostSpec) -> Result<Self, InvalidField> {
        Ok(Self {
            id: parse("id", &host.id)?,
            ingress: host.ingress,
            api: host.api,
            cpu: hvm_types::CpuMhz(host.cpu_mhz),
            memory: host.memory_mb,
            attributes: host.attributes.into_iter().collect(),
            store: parse_optional("store", &host.store)?,
        })
    }
}

impl From<HostDocument> for v1::HostDocument {
    fn from(document: HostDocument) -> Self {
        let mut numbers = TaskNumbers::default();
        let assignments = document
            .assignments
            .into_iter()
            .map(|assignment| v1::Assignment {
                task: u32::try_from(numbers.number(&assignment.task)).expect("fewer tasks than replicas"),
                replica: assignment.replica.to_string(),
                generation: assignment.generation.0,
                epoch: assignment.epoch.0,
                image: assignment.image.to_string(),
                stateful: assignment.stateful,
                retention_json: write_retention(assignment.retention),
            })
            .collect();
        let json = |task: &Arc<TaskSpec>| {
            serde_json::to_string(task.as_ref()).expect("a task of strings and numbers is JSON")
        };
        let tasks_json = numbers.into_tasks().iter().map(json).collect();
        Self {
            assignments,
            routing: Some(document.routing.into()),
            version: document.version,
            purge: document.purge.iter().map(ToString::to_string).collect(),
            tasks_json,
        }
    }
}

impl TryFrom<v1::HostDocument> for HostDocument {
    type Error = InvalidField;

    fn try_from(document: v1::HostDocument) -> Result<Self, InvalidField> {
        let tasks = document.tasks_json.iter().enumerate().map(|(i, json)| {
            serde_json::from_str(json)
                .map(Arc::new)
                .map_err(|reason| InvalidField::new(format!("tasks_json[{i}]"), reason))
        });
        let tasks: Vec<Arc<TaskSpec>> = tasks.collect::<Result<_, _>>()?;
        let read = |(i, assignment): (usize, v1::Assignment)| {
            read_assignment(assignment, &tasks).map_err(|e| e.within(format!("assignments[{i}]")))
        };
        Ok(Self {
            assignments: document.assignments.into_iter().enumerate().map(read).collect::<Result<_, _>>()?,
            routing: required("routing", document.routing)?,
            version: document.version,
            purge: document.purge.iter().map(|id| parse("purge", id)).collect::<Result<_, _>>()?,
        })
    }
}

fn read_assignment(assignment: v1::Assignment, tasks: &[Arc<TaskSpec>]) -> Result<Assignment, InvalidField> {
    let task = usize::try_from(assignment.task).ok().and_then(|number| tasks.get(number));
    let task = task.ok_or_else(|| {
        InvalidField::new("task", format!("there is no task {} in tasks_json", assignment.task))
    })?;
    Ok(Assignment {
        replica: parse("replica", &assignment.replica)?,
        generation: Generation(assignment.generation),
        epoch: Epoch(assignment.epoch),
        image: parse("image", &assignment.image)?,
        stateful: assignment.stateful,
        retention: read_retention(&assignment.retention_json)?,
        task: Arc::clone(task),
    })
}

fn write_retention(retention: RetentionSpec) -> String {
    if retention.is_unset() {
        return String::new();
    }
    serde_json::to_string(&retention).expect("a retention of strings and numbers is JSON")
}

fn read_retention(json: &str) -> Result<RetentionSpec, InvalidField> {
    if json.is_empty() {
        return Ok(RetentionSpec::default());
    }
    serde_json::from_str(json).map_err(|reason| InvalidField::new("retention_json", reason))
}

impl From<RoutingTable> for v1::RoutingTable {
    fn from(table: RoutingTable) -> Self {
        Self {
            hosts: table.hosts.into_iter().map(|(host, address)| (host.into(), address)).collect(),
            routes: table.routes.into_iter().map(Into::into).collect(),
            groups: table.groups.into_iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<v1::RoutingTable> for RoutingTable {
    type Error = InvalidField;

    fn try_from(table: v1::RoutingTable) -> Result<Self, InvalidField> {
        let hosts = table.hosts.into_iter().map(|(host, address)| Ok((parse("hosts", &host)?, address)));
        Ok(Self {
            hosts: hosts.collect::<Result<_, _>>()?,
            routes: each("routes", table.routes)?,
            groups: each("groups", table.groups)?,
        })
    }
}

impl From<RouteTarget> for v1::Route {
    fn from(target: RouteTarget) -> Self {
        Self {
            deployment: target.deployment.into(),
            route_json: serde_json::to_string(&target.route).expect("a route of strings is JSON"),
        }
    }
}

impl TryFrom<v1::Route> for RouteTarget {
    type Error = InvalidField;

    fn try_from(route: v1::Route) -> Result<Self, InvalidField> {
        let spec: RouteSpec = serde_json::from_str(&route.route_json)
            .map_err(|reason| InvalidField::new("route_json", reason))?;
        Ok(Self { deployment: parse("deployment", &route.deployment)?, route: spec })
    }
}

impl From<GroupPlacement> for v1::GroupPlacement {
    fn from(group: GroupPlacement) -> Self {
        let owners = group.owners.into_iter().map(|owner| v1::PartitionOwner {
            index: owner.index,
            host: owner.host.into(),
            epoch: owner.epoch.0,
        });
        Self {
            deployment: group.deployment.into(),
            group: group.group.into(),
            partitioned: group.partitioned,
            copies: group.copies,
            owners: owners.collect(),
        }
    }
}

impl TryFrom<v1::GroupPlacement> for GroupPlacement {
    type Error = InvalidField;

    fn try_from(group: v1::GroupPlacement) -> Result<Self, InvalidField> {
        Ok(Self {
            deployment: parse("deployment", &group.deployment)?,
            group: parse("group", &group.group)?,
            partitioned: group.partitioned,
            copies: group.copies,
            owners: each("owners", group.owners)?,
        })
    }
}

impl TryFrom<v1::PartitionOwner> for PartitionOwner {
    type Error = InvalidField;

    fn try_from(owner: v1::PartitionOwner) -> Result<Self, InvalidField> {
        Ok(Self { index: owner.index, host: parse("host", &owner.host)?, epoch: Epoch(owner.epoch) })
    }
}
