//! `hvm status` and `hvm hosts`: what was declared, what runs, and where.

use std::collections::{BTreeMap, BTreeSet};

use hvm_types::{DeploymentStatus, GroupStatus, HostStatus, ReplicaReport, ReplicaState, StoreId};

use crate::cli::{ListArgs, StatusArgs};
use crate::client::Control;
use crate::command::doing;
use crate::failure::Failure;
use crate::out;
use crate::table;

/// Runs `hvm status`.
pub(crate) async fn status(args: StatusArgs) -> Result<(), Failure> {
    let mut control = Control::connect(&args.list.api).await?;
    if args.doing {
        return doing::print(&mut control, args.deployment.unwrap_or_default(), args.list.json).await;
    }
    let name = args.deployment.unwrap_or_default();
    let wire = control.status(&name).await?;
    let deployments: Vec<DeploymentStatus> =
        wire.deployments.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?;
    if deployments.is_empty() && !name.is_empty() {
        return Err(Failure::new(format!("there is no deployment {name}")).hint("`hvm status` shows all"));
    }
    if args.list.json {
        return table::print_json(&deployments);
    }
    if deployments.is_empty() {
        out::line("nothing is declared: `hvm deploy FILE` declares a deployment");
    }
    for deployment in &deployments {
        let stopping = if deployment.stopping { ", stopping" } else { "" };
        out::line(format!(
            "{}  generation {}{stopping}  {}  {}",
            deployment.deployment, deployment.generation, deployment.app, deployment.image
        ));
        if args.partitions {
            print_copies(deployment);
        } else {
            print_groups(deployment);
        }
        out::line("");
    }
    Ok(())
}

fn print_groups(deployment: &DeploymentStatus) {
    let mut rows = table::table(&["group", "serving", "generations", "states", "hosts"]);
    for group in &deployment.groups {
        let serving = group
            .replicas
            .iter()
            .filter(|replica| replica.observed.as_ref().is_some_and(|report| report.state.serves()))
            .count();
        let hosts: BTreeSet<&str> =
            group.replicas.iter().filter_map(|replica| Some(replica.host.as_ref()?.as_str())).collect();
        rows.add_row([
            group.group.to_string(),
            format!("{serving}/{}", group.replicas.len()),
            generations(group),
            states(group),
            hosts.into_iter().collect::<Vec<_>>().join(" "),
        ]);
    }
    table::print(&rows, "no groups");
    for group in &deployment.groups {
        for (reason, copies) in reasons(group) {
            out::line(format!(" {}: {copies} {reason}", group.group));
        }
    }
}

/// What keeps copies from serving or changing, and how many of them. Below the table, because a reason is
/// as long as a line.
fn reasons(group: &GroupStatus) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::<String, u64>::new();
    for replica in &group.replicas {
        let next = |report: &ReplicaReport| report.next.as_ref().map(|(_, state)| state.clone());
        let states = replica.observed.iter().flat_map(|report| [Some(report.state.clone()), next(report)]);
        let failed = states
            .flatten()
            .filter(|state| matches!(state, ReplicaState::Failed { .. } | ReplicaState::Fenced { .. }));
        let waits = replica.waits.iter().map(|reason| format!("waiting: {reason}"));
        for reason in failed.map(|state| state.to_string()).chain(waits) {
            *counts.entry(reason).or_default() += 1;
        }
    }
    counts
}

/// How many copies run which generation, and how many are being brought to another.
fn generations(group: &GroupStatus) -> String {
    let mut counts = BTreeMap::<String, u64>::new();
    for report in group.replicas.iter().filter_map(|replica| replica.observed.as_ref()) {
        let label = match &report.next {
            Some((next, state)) => format!("{} ({} {})", report.generation, next, state.word()),
            None => report.generation.to_string(),
        };
        *counts.entry(label).or_default() += 1;
    }
    counts.iter().map(|(label, n)| format!("{n} at {label}")).collect::<Vec<_>>().join(", ")
}

fn states(group: &GroupStatus) -> String {
    let mut counts = BTreeMap::<String, u64>::new();
    for replica in &group.replicas {
        let state = match (&replica.observed, &replica.host) {
            (Some(report), _) => report.state.word().to_owned(),
            (None, Some(_)) => "assigned".to_owned(),
            (None, None) => "unplaced".to_owned(),
        };
        *counts.entry(state).or_default() += 1;
    }
    counts.iter().map(|(state, n)| format!("{n} {state}")).collect::<Vec<_>>().join(", ")
}

fn print_copies(deployment: &DeploymentStatus) {
    let mut rows = table::table(&["copy", "host", "epoch", "generation", "state"]);
    for group in &deployment.groups {
        for replica in &group.replicas {
            let report = replica.observed.as_ref();
            let state = match report {
                Some(report) => match &report.next {
                    Some((next, state)) => format!("{}; generation {next}: {state}", report.state),
                    None => report.state.to_string(),
                },
                None => replica.waits.as_ref().map_or("assigned".to_owned(), |why| format!("waits: {why}")),
            };
            rows.add_row([
                format!("{}/{}", group.group, replica.index),
                replica.host.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string),
                report.map_or_else(|| "-".to_owned(), |report| report.epoch.to_string()),
                report.map_or_else(|| "-".to_owned(), |report| report.generation.to_string()),
                state,
            ]);
        }
    }
    table::print(&rows, "no copies");
}

/// Runs `hvm hosts`.
pub(crate) async fn hosts(args: ListArgs) -> Result<(), Failure> {
    let mut control = Control::connect(&args.api).await?;
    let wire = control.status("").await?.hosts;
    let hosts: Vec<HostStatus> = wire.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?;
    if args.json {
        return table::print_json(&hosts);
    }
    let mut rows = table::table(&["host", "state", "assigned", "cpu", "memory", "store", "ingress", "api"]);
    for host in &hosts {
        rows.add_row([
            host.spec.id.to_string(),
            if host.alive { "alive" } else { "lost" }.to_owned(),
            host.assigned.to_string(),
            host.spec.cpu.to_string(),
            format!("{} MB", host.spec.memory),
            host.spec.store.as_ref().map_or("own disk", StoreId::short).to_owned(),
            host.spec.ingress.clone(),
            host.spec.api.clone(),
        ]);
    }
    table::print(&rows, "no host has joined: start `hvm agent`");
    Ok(())
}
