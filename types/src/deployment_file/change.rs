//! What a new generation may not change: how state is divided, and how a request finds its part.

use crate::{DeploymentSpec, KeySource};

use super::error::SpecError;
use super::relations::groups;

/// The changes from `old` to `new` that are refused, with their reasons. Empty: the change is allowed.
///
/// Durable state belongs to a partition by its number, and a key's partition follows from their count, so
/// a changed count would leave keys with partitions that do not have their data.
#[must_use]
pub fn change_allowed(old: &DeploymentSpec, new: &DeploymentSpec) -> Vec<SpecError> {
    let mut errors = Vec::new();
    if old.deployment != new.deployment {
        let problem = format!("is another deployment than `{}`", old.deployment);
        errors.push(SpecError::new("deployment", problem, "deploy it under its own name"));
        return errors;
    }
    for (path, group) in groups(new) {
        let Some((_, before)) = groups(old).find(|(_, before)| before.name == group.name) else { continue };
        let name = &group.name;
        match (before.partitions, group.partitions) {
            (Some(was), Some(is)) if was != is => errors.push(SpecError::new(
                format!("{path}.partitions"),
                format!(
                    "`{name}` is live with {was} partitions, and the keys of its state are divided among them"
                ),
                format!("keep {was}, or declare a group with another name and move the data through the app"),
            )),
            (Some(was), None) => errors.push(SpecError::new(
                path,
                format!(
                    "`{name}` is live with {was} partitions; without `partitions` their state had no owner"
                ),
                format!("keep `partitions: {was}`, or declare the copies as a group with another name"),
            )),
            (None, Some(_)) => errors.push(SpecError::new(
                format!("{path}.partitions"),
                format!(
                    "`{name}` is live as copies without state, and can't become partitions while it serves"
                ),
                "keep `replicas`, or declare the partitions as a group with another name",
            )),
            _ => {}
        }
    }
    errors.extend(moved_keys(old, new));
    errors
}

/// Routes whose key stands elsewhere than before: the same request would reach another partition.
fn moved_keys(old: &DeploymentSpec, new: &DeploymentSpec) -> Vec<SpecError> {
    let moved = |(index, route): (usize, &crate::RouteSpec)| {
        let same = |was: &&crate::RouteSpec| was.r#match == route.r#match && was.group == route.group;
        let before = old.routes.iter().find(same)?.key.as_ref()?;
        let after = route.key.as_ref()?;
        (before != after).then(|| {
            SpecError::new(
                format!("routes[{index}].key"),
                format!(
                    "`{}` is live and divided by {}; with another key, requests would reach partitions \
                     without their data",
                    route.group,
                    place_of(before)
                ),
                "keep the key, or declare a group with another name and move the data through the app",
            )
        })
    };
    new.routes.iter().enumerate().filter_map(moved).collect()
}

fn place_of(key: &KeySource) -> String {
    match key {
        KeySource::PathSegment(n) => format!("path segment {n}"),
        KeySource::Header(name) => format!("the header `{name}`"),
        KeySource::Query(name) => format!("the query parameter `{name}`"),
    }
}
