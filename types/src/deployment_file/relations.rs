//! The rules between fields: names are unique, routes reach groups, state needs partitions.

use std::collections::BTreeMap;

use crate::{DeploymentSpec, GroupSpec, RouteSpec};

use super::error::SpecError;
use super::suggest;

type Errors = Vec<SpecError>;

pub(super) fn check(spec: &DeploymentSpec) -> Errors {
    let mut errors = Errors::new();
    let jobs = spec.jobs.iter().enumerate();
    unique(&mut errors, "job", jobs.map(|(j, job)| (format!("jobs[{j}].name"), job.name.to_string())));
    let groups: Vec<(String, &GroupSpec)> = groups(spec).collect();
    let names = groups.iter().map(|(path, group)| (format!("{path}.name"), group.name.to_string()));
    unique(&mut errors, "group", names);
    for (path, group) in &groups {
        check_group(&mut errors, group, path);
    }
    for (r, route) in spec.routes.iter().enumerate() {
        check_route(&mut errors, route, &format!("routes[{r}]"), &groups);
    }
    check_matches(&mut errors, &spec.routes);
    errors
}

/// All groups of a deployment with their paths.
pub(super) fn groups(spec: &DeploymentSpec) -> impl Iterator<Item = (String, &GroupSpec)> {
    spec.jobs.iter().enumerate().flat_map(|(j, job)| {
        job.groups.iter().enumerate().map(move |(g, group)| (format!("jobs[{j}].groups[{g}]"), group))
    })
}

fn unique(errors: &mut Errors, what: &str, names: impl Iterator<Item = (String, String)>) {
    let mut seen: BTreeMap<String, String> = BTreeMap::new();
    for (path, name) in names {
        if let Some(first) = seen.get(&name) {
            let problem = format!("`{name}` is already the name of the {what} at {first}");
            errors.push(SpecError::new(path, problem, format!("give each {what} a name of its own")));
        } else {
            seen.insert(name, path);
        }
    }
}

fn check_group(errors: &mut Errors, group: &GroupSpec, path: &str) {
    if group.partitions.is_some() && group.replicas.is_some() {
        errors.push(SpecError::new(
            format!("{path}.replicas"),
            "stands beside `partitions`, and a group is one or the other",
            "keep `partitions` for stateful shards or `replicas` for stateless copies",
        ));
    }
    for (field, is_set) in
        [("history", group.history.is_some()), ("idempotency", group.idempotency.is_some())]
    {
        if is_set && !group.is_partitioned() {
            errors.push(SpecError::new(
                format!("{path}.{field}"),
                "is set for copies without state, which commit nothing",
                "declare the group with `partitions`, or remove it",
            ));
        }
    }
    let tasks = group.tasks.iter().enumerate();
    let names = tasks.clone().map(|(t, task)| (format!("{path}.tasks[{t}].name"), task.name.to_string()));
    unique(errors, "task", names);
    for (t, task) in tasks {
        if !group.is_partitioned() && !task.grants.keyvalue.is_empty() {
            errors.push(SpecError::new(
                format!("{path}.tasks[{t}].grants.keyvalue"),
                "is granted to copies without state: each would keep, and lose, data of its own",
                "declare the group with `partitions`, or remove the grant",
            ));
        }
    }
}

fn check_route(errors: &mut Errors, route: &RouteSpec, path: &str, groups: &[(String, &GroupSpec)]) {
    let Some((_, group)) = groups.iter().find(|(_, group)| group.name == route.group) else {
        let names = || groups.iter().map(|(_, group)| group.name.as_str());
        let advice = match suggest::nearest(route.group.as_str(), names()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("write one of: {}", names().take(20).collect::<Vec<_>>().join(", ")),
        };
        let problem = format!("there is no group `{}` in this deployment", route.group);
        errors.push(SpecError::new(format!("{path}.group"), problem, advice));
        return;
    };
    match (group.is_partitioned(), route.key.is_some()) {
        (true, false) => errors.push(SpecError::new(
            format!("{path}.key"),
            format!(
                "is missing: `{}` is partitioned, and only a key says which partition answers",
                group.name
            ),
            "add one, such as `key: { path_segment: 2 }`",
        )),
        (false, true) => errors.push(SpecError::new(
            format!("{path}.key"),
            format!("has no meaning: `{}` is not partitioned, and any copy answers any request", group.name),
            "remove it, or declare the group with `partitions`",
        )),
        _ => {}
    }
}

fn check_matches(errors: &mut Errors, routes: &[RouteSpec]) {
    let mut seen = BTreeMap::new();
    for (r, route) in routes.iter().enumerate() {
        let matched = (&route.r#match.host, &route.r#match.prefix);
        if let Some(first) = seen.get(&matched) {
            errors.push(SpecError::new(
                format!("routes[{r}].match"),
                format!("takes the same requests as routes[{first}]"),
                "remove one of the two, or change its host or prefix",
            ));
        } else {
            seen.insert(matched, r);
        }
    }
}
