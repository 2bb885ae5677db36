//! The rules that need more than the file: each finds all its mistakes.

use std::collections::BTreeMap;
use std::sync::Arc;

use hvm_types::deployment_file::SpecError;
use hvm_types::{Capability, DeploymentSpec, Digest, GroupSpec, HostId, ImageRef, TaskSpec};

use super::capability::ungranted;
use super::layouts;
use crate::documents::{DeploymentDocument, GroupKey, StoredImage, World};
use crate::planner::Observation;

fn error(field: impl Into<String>, problem: impl Into<String>, advice: impl Into<String>) -> SpecError {
    SpecError { place: None, field: field.into(), problem: problem.into(), advice: advice.into() }
}

/// Something is wrong with how the file and the request name the image.
pub(super) fn image_error(problem: String) -> SpecError {
    error("image", problem, "send the image that the file names")
}

pub(super) fn unknown_image(spec: &DeploymentSpec, digest: Digest) -> SpecError {
    let problem = match &spec.image {
        ImageRef::File(file) => format!("the scheduler does not have `{file}` ({digest})"),
        ImageRef::Digest(..) => format!("the scheduler has no image {digest}"),
    };
    error("image", problem, "send it with `hvm image push FILE`, or name the file here")
}

/// All tasks, each with its path and its group.
fn tasks(spec: &DeploymentSpec) -> impl Iterator<Item = (String, &GroupSpec, &TaskSpec)> {
    groups(spec).flat_map(|(path, group)| {
        let tasks = group.tasks.iter().enumerate();
        tasks.map(move |(t, task)| (format!("{path}.tasks[{t}]"), group, task))
    })
}

fn groups(spec: &DeploymentSpec) -> impl Iterator<Item = (String, &GroupSpec)> {
    spec.jobs.iter().enumerate().flat_map(|(j, job)| {
        job.groups.iter().enumerate().map(move |(g, group)| (format!("jobs[{j}].groups[{g}]"), group))
    })
}

/// The image has what the tasks name, and asks for no more than they grant.
pub(super) fn against_image(spec: &DeploymentSpec, image: &StoredImage) -> Vec<SpecError> {
    let config = &image.config;
    let mut errors = Vec::new();
    if let ImageRef::Digest(name, _) = &spec.image
        && *name != config.app
    {
        let problem = format!("it names the app `{name}`, and that digest is an image of `{}`", config.app);
        errors.push(error("image", problem, "write the app and the digest that belong together"));
    }
    for (path, group, task) in tasks(spec) {
        let name = &task.config.package;
        let Some(package) = config.packages.get(name) else {
            let all: Vec<_> = config.packages.keys().map(|name| format!("`{name}`")).collect();
            errors.push(error(
                format!("{path}.config.package"),
                format!("{} {} has no package `{name}`", config.app, config.version),
                format!("name one that it has: {}", all.join(", ")),
            ));
            continue;
        };
        for (capability, line) in ungranted(&package.capabilities, &task.grants) {
            let problem =
                format!("package `{name}` asks for `{capability}`, which `{}` does not grant", group.name);
            let advice = format!(
                "write `{line}` under the grants of task `{}`, or use an image that asks for less",
                task.name
            );
            errors.push(error(format!("{path}.grants"), problem, advice));
        }
    }
    errors
}

/// State that is there already is neither divided anew nor read by a version that is too old for it.
pub(super) fn against_stored(
    spec: &DeploymentSpec,
    image: &StoredImage,
    old: Option<&DeploymentDocument>,
    world: &World,
    observed: &BTreeMap<HostId, Arc<Observation>>,
) -> Vec<SpecError> {
    let mut errors = Vec::new();
    let config = &image.config;
    if let Some(old) = old.filter(|old| old.current.app != config.app) {
        errors.push(error(
            "image",
            format!(
                "deployment `{}` runs `{}`, and this is `{}`",
                spec.deployment, old.current.app, config.app
            ),
            "deploy another app under another name",
        ));
    }
    // No state is older than the first layout that it may be in, or newer than the last.
    let (mut oldest, mut schema) =
        old.map_or((u32::MAX, 0), |old| layouts::of(old, world, observed).into_inner());
    for (path, group) in groups(spec) {
        let key = GroupKey { deployment: spec.deployment.clone(), group: group.name.clone() };
        let Some(kept) = world.ownership.get(&key).map(|kept| &kept.value) else { continue };
        schema = schema.max(kept.state_schema);
        if kept.state_schema > 0 {
            oldest = oldest.min(kept.state_schema);
        }
        let live = old.is_some_and(|old| old.current.group(&group.name).is_some());
        let parts = kept.homes.len();
        let wanted = group.partitions.and_then(|n| usize::try_from(n).ok());
        if !live && parts > 0 && wanted.is_some_and(|wanted| wanted != parts) {
            errors.push(error(
                format!("{path}.partitions"),
                format!("the state of {parts} partitions of `{}` is kept from an earlier deployment", group.name),
                format!("keep {parts}; or deploy it with {parts} and then stop it with --purge to delete that state"),
            ));
        }
    }
    let stateful = groups(spec).any(|(_, group)| group.is_partitioned());
    if stateful && config.state_schema < schema {
        errors.push(error(
            "image",
            format!(
                "{} {} writes state in layout {}, and the state here is in layout {schema}",
                config.app, config.version, config.state_schema
            ),
            format!("deploy a version whose state_schema is {schema} or higher"),
        ));
    } else if keeps_keys(spec, image)
        && schema > 0
        && let Err(reason) = config.schema().must_migrate(oldest)
    {
        let what = format!("{} {} can't take over: {reason}", config.app, config.version);
        errors.push(error("image", what, "the version that runs goes on"));
    }
    errors
}

/// Whether a partition of it may have keys.
fn keeps_keys(spec: &DeploymentSpec, image: &StoredImage) -> bool {
    let packages = &image.config.packages;
    let has_keys = |task: &TaskSpec| {
        packages
            .get(&task.config.package)
            .is_some_and(|package| package.capabilities.contains(&Capability::Keyvalue))
    };
    groups(spec).any(|(_, group)| group.is_partitioned() && group.tasks.iter().any(has_keys))
}

/// No two deployments take the same requests.
pub(super) fn against_neighbours(spec: &DeploymentSpec, world: &World) -> Vec<SpecError> {
    let mut taken = BTreeMap::new();
    for (name, document) in &world.deployments {
        if *name == spec.deployment || document.value.stop.is_some() {
            continue;
        }
        for route in &document.value.current.spec.routes {
            taken.insert((&route.r#match.host, &route.r#match.prefix), name);
        }
    }
    let mut errors = Vec::new();
    for (r, route) in spec.routes.iter().enumerate() {
        let matched = &route.r#match;
        let Some(other) = taken.get(&(&matched.host, &matched.prefix)) else { continue };
        let host = matched.host.as_ref().map_or(String::new(), |host| format!(" on host {host}"));
        errors.push(error(
            format!("routes[{r}].match"),
            format!("deployment `{other}` already takes `{}`{host}", matched.prefix),
            format!("choose another prefix or host, or stop `{other}`"),
        ));
    }
    errors
}
