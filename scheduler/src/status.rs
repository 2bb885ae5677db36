//! What operators see: the documents, what hosts said, and what the planner waits for, side by side.

use std::collections::BTreeMap;
use std::sync::Arc;

use hvm_api::v1;
use hvm_types::{
    DeploymentName, DeploymentStatus, GroupName, GroupStatus, HostId, HostStatus, ReplicaReport,
    ReplicaStatus,
};

use crate::documents::{DeploymentDocument, GroupKey, World};
use crate::planner::{Finish, Observation, Plan, StepAction, plan};
use crate::view;

/// What is known of a replica.
#[derive(Default)]
struct Known<'a> {
    owner: Option<(&'a HostId, hvm_types::Epoch)>,
    observed: Option<(&'a HostId, &'a ReplicaReport)>,
    waits: Option<String>,
}

type Replicas<'a> = BTreeMap<&'a GroupKey, BTreeMap<u32, Known<'a>>>;

/// The status of one deployment, or of all, and of all hosts.
pub(crate) fn status(
    world: &World,
    observed: &BTreeMap<HostId, Arc<Observation>>,
    only: Option<&DeploymentName>,
) -> (Vec<DeploymentStatus>, Vec<HostStatus>) {
    let next = plan(&view::plan_input(world, observed));
    let replicas = replicas(world, observed, &next, only);
    let wanted = world.deployments.iter().filter(|(name, _)| only.is_none_or(|only| only == *name));
    let deployments = wanted.map(|(name, document)| deployment(name, &document.value, &replicas)).collect();
    let hosts = world.hosts.values().filter_map(|record| {
        let assigned = record.assignments.as_ref().map_or(0, |document| document.value.len());
        Some(HostStatus {
            spec: (*record.spec.as_ref()?.value).clone(),
            alive: record.alive.is_some(),
            assigned: u32::try_from(assigned).unwrap_or(u32::MAX),
        })
    });
    (deployments, hosts.collect())
}

fn replicas<'a>(
    world: &'a World,
    observed: &'a BTreeMap<HostId, Arc<Observation>>,
    next: &'a Plan,
    only: Option<&DeploymentName>,
) -> Replicas<'a> {
    let asked = |key: &GroupKey| only.is_none_or(|only| *only == key.deployment);
    let mut all = Replicas::new();
    for (host, record) in &world.hosts {
        let Some(assignments) = &record.assignments else { continue };
        for (key, replicas) in assignments.value.groups.iter().filter(|(key, _)| asked(key)) {
            let group = all.entry(key).or_default();
            for (index, ownership) in replicas {
                let known = group.entry(*index).or_default();
                if known.owner.is_none_or(|(_, epoch)| epoch < ownership.epoch) {
                    known.owner = Some((host, ownership.epoch));
                }
            }
        }
    }
    // What a lost host said last is no longer known to be so.
    let alive = |host: &HostId| world.hosts.get(host).is_some_and(|record| record.alive.is_some());
    for (host, observation) in observed.iter().filter(|(host, _)| alive(host)) {
        for (key, reports) in observation.replicas.iter().filter(|(key, _)| asked(key)) {
            let group = all.entry(key).or_default();
            for (index, report) in reports {
                let known = group.entry(*index).or_default();
                // The owner's word counts; where there is no owner, that of any host that still has it.
                if known.observed.is_none() || known.owner.is_some_and(|(owner, _)| owner == host) {
                    known.observed = Some((host, report));
                }
            }
        }
    }
    for step in next.steps.iter().filter(|step| asked(&step.group)) {
        if let StepAction::Wait { reason, .. } = &step.action {
            all.entry(&step.group).or_default().entry(step.index).or_default().waits =
                Some(reason.to_string());
        }
    }
    for stop in &next.stops {
        if let Finish::WaitsFor { deployment, hosts } = stop {
            let hosts: Vec<_> = hosts.iter().map(ToString::to_string).collect();
            let line = format!("being stopped: waits for host {} to confirm", hosts.join(", "));
            let of_it = all.iter_mut().filter(|(key, _)| key.deployment == *deployment);
            of_it
                .flat_map(|(_, group)| group.values_mut())
                .for_each(|known| known.waits = Some(line.clone()));
        }
    }
    all
}

fn deployment(
    name: &DeploymentName,
    document: &DeploymentDocument,
    replicas: &Replicas<'_>,
) -> DeploymentStatus {
    let current = &document.current;
    let mut groups: BTreeMap<&GroupName, (bool, u32)> =
        current.groups().map(|group| (&group.name, (group.is_partitioned(), group.copies()))).collect();
    // Groups that are not wanted any more are shown as long as something of them is there.
    for key in replicas.keys().filter(|key| key.deployment == *name) {
        let earlier = document.earlier.iter().find_map(|accepted| accepted.group(&key.group));
        groups.entry(&key.group).or_insert((earlier.is_some_and(|group| group.is_partitioned()), 0));
    }
    let group = |(group, (partitioned, copies)): (&GroupName, (bool, u32))| {
        let key = GroupKey { deployment: name.clone(), group: group.clone() };
        let known = replicas.get(&key);
        let surplus = known.into_iter().flat_map(|known| known.range(copies..)).map(|(index, _)| *index);
        let replica =
            |index: u32| replica(index, current.generation, known.and_then(|known| known.get(&index)));
        GroupStatus {
            group: group.clone(),
            partitioned,
            replicas: (0..copies).chain(surplus).map(replica).collect(),
        }
    };
    DeploymentStatus {
        deployment: name.clone(),
        generation: current.generation,
        app: format!("{} {}", current.app, current.version),
        image: current.image,
        stopping: document.stop.is_some(),
        groups: groups.into_iter().map(group).collect(),
    }
}

fn replica(index: u32, wanted: hvm_types::Generation, known: Option<&Known<'_>>) -> ReplicaStatus {
    let Some(known) = known else {
        return ReplicaStatus { index, host: None, wanted, observed: None, waits: None };
    };
    let host = known.owner.map(|(host, _)| host).or(known.observed.map(|(host, _)| host));
    let observed = known.observed.filter(|(by, _)| known.owner.is_none_or(|(owner, _)| owner == *by));
    ReplicaStatus {
        index,
        host: host.cloned(),
        wanted,
        observed: observed.map(|(_, report)| report.clone()),
        waits: known.waits.clone(),
    }
}

/// The steps of one deployment's plan, counted by what happens, where and why.
pub(crate) fn plan_lines(next: &Plan, deployment: &DeploymentName) -> Vec<v1::PlanLine> {
    let mut counted: BTreeMap<(String, &'static str, String, String), u32> = BTreeMap::new();
    let mut count = |group: &GroupKey, kind, host: Option<&HostId>, reason, replicas| {
        if group.deployment == *deployment {
            let host = host.map(ToString::to_string).unwrap_or_default();
            *counted.entry((group.group.to_string(), kind, host, reason)).or_default() += replicas;
        }
    };
    for kept in &next.kept {
        count(&kept.group, "keep", Some(&kept.host), String::new(), kept.replicas);
    }
    for step in &next.steps {
        let (kind, host, reason) = match &step.action {
            StepAction::Place { host, epoch, .. } => ("place", Some(host), format!("epoch {epoch}")),
            StepAction::Update { host, from, to } => {
                ("update", Some(host), format!("generation {from} to {to}"))
            }
            StepAction::Remove { host, why } => ("remove", Some(host), why.to_string()),
            StepAction::Wait { host, reason } => ("wait", host.as_ref(), reason.to_string()),
        };
        count(&step.group, kind, host, reason, 1);
    }
    let line = |((group, kind, host, reason), replicas): ((String, &str, String, String), u32)| {
        v1::PlanLine { kind: kind.to_owned(), group, replicas, host, reason }
    };
    counted.into_iter().map(line).collect()
}
