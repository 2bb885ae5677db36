//! Last phase: deployments that were asked to stop. One is finished when every host that is alive has
//! confirmed that nothing of it is left; hosts that are lost learn of it when they are back.

use hvm_types::{DeploymentName, HostId};

use crate::documents::{AssignmentDocument, DeploymentDocument, OwnershipDocument};
use crate::planner::draft::Draft;
use crate::planner::fleet::Fleet;
use crate::planner::{Finish, HostInput, PlanInput};

pub(super) fn run(input: &PlanInput<'_>, fleet: &Fleet<'_>, draft: &mut Draft) -> Vec<Finish> {
    let mut stops = Vec::new();
    for (name, document) in &input.deployments {
        let Some(order) = document.stop else { continue };
        if order.purge {
            order_purges(input, fleet, draft, name);
        }
        let waits_for = |host: &usize| {
            fleet.input(*host).alive && !is_gone(fleet.input(*host), draft.seen(fleet, *host), name)
        };
        let hosts: Vec<HostId> =
            (0..fleet.hosts.len()).filter(waits_for).map(|host| fleet.id(host).clone()).collect();
        if hosts.is_empty() {
            close(input, draft, name, document, order.purge);
            stops.push(Finish::Done { deployment: (*name).clone() });
        } else {
            stops.push(Finish::WaitsFor { deployment: (*name).clone(), hosts });
        }
    }
    stops
}

/// Tells hosts to delete the state: that on a disk its host, that in a store one of those that reach it.
fn order_purges(input: &PlanInput<'_>, fleet: &Fleet<'_>, draft: &mut Draft, name: &DeploymentName) {
    for (key, recorded) in input.ownership.iter().filter(|(key, _)| key.deployment == *name) {
        let document = draft.ownership.get(*key).unwrap_or(recorded).clone();
        for (home, mut indexes) in document.by_home() {
            let Some(last) = fleet.number(&home.host) else { continue };
            let mut purger = last;
            if home.store.is_some() && home.store.as_ref() == fleet.store(last) {
                // Whoever was told before goes on with it.
                let told = |host: usize, index: u32| {
                    draft.seen(fleet, host).purge.get(*key).is_some_and(|purge| purge.contains(&index))
                };
                indexes.retain(|index| !fleet.sharing(last).any(|host| told(host, *index)));
                if !fleet.input(last).alive {
                    let living = fleet.sharing(last).find(|host| fleet.input(*host).alive);
                    purger = living.unwrap_or(last);
                }
            }
            if !indexes.is_empty() {
                draft.host(fleet, purger).purge.entry((*key).clone()).or_default().extend(indexes);
            }
        }
    }
}

/// Whether a host has nothing of the deployment, and knows that it shall have nothing.
fn is_gone(host: HostInput<'_>, draft: &AssignmentDocument, name: &DeploymentName) -> bool {
    let told = |document: &AssignmentDocument| {
        document.groups.keys().chain(document.purge.keys()).all(|key| key.deployment != *name)
    };
    let confirmed = host.observed.is_some_and(|observed| {
        observed.has_applied(host.version) && observed.replicas.keys().all(|key| key.deployment != *name)
    });
    told(host.assignments) && told(draft) && confirmed
}

/// Writes down what a later deployment of the same name must know.
fn close(
    input: &PlanInput<'_>,
    draft: &mut Draft,
    name: &DeploymentName,
    document: &DeploymentDocument,
    purged: bool,
) {
    for (key, recorded) in input.ownership.iter().filter(|(key, _)| key.deployment == *name) {
        let entry: &mut OwnershipDocument =
            draft.ownership.entry((*key).clone()).or_insert_with(|| (*recorded).clone());
        entry.generation = document.current.generation;
        entry.state_schema = if purged { 0 } else { document.current.state_schema };
        if purged {
            entry.homes.clear();
        }
    }
}
