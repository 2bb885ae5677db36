//! The phases one after another.

use super::{placement, removal, stop, update};
use crate::planner::draft::Draft;
use crate::planner::fleet::Fleet;
use crate::planner::group::Group;
use crate::planner::{Kept, Plan, PlanInput};

/// What shall be. See the [module](crate::planner).
#[must_use]
pub fn plan(input: &PlanInput<'_>) -> Plan {
    let mut fleet = Fleet::new(&input.hosts);
    let mut draft = Draft::default();
    let mut groups = removal::run(input, &mut fleet, &mut draft);
    update::run(&mut groups, &mut fleet, &mut draft);
    placement::run(&mut groups, &mut fleet, &mut draft);
    let stops = stop::run(input, &fleet, &mut draft);

    let assignments = draft.changed_hosts(&fleet);
    let mut ownership = draft.ownership;
    ownership.retain(|key, document| input.ownership.get(key) != Some(&&*document));
    let mut steps = draft.steps;
    steps.sort_by(|a, b| (&a.group, a.index).cmp(&(&b.group, b.index)));
    Plan { ownership, assignments, stops, steps, kept: kept(&groups, &fleet) }
}

fn kept(groups: &[Group<'_>], fleet: &Fleet<'_>) -> Vec<Kept> {
    let mut all = Vec::new();
    for group in groups {
        let mut kept: Vec<_> = group.kept().into_iter().collect();
        kept.sort_unstable();
        all.extend(kept.into_iter().map(|(host, replicas)| Kept {
            group: std::sync::Arc::clone(&group.key),
            host: fleet.id(host).clone(),
            replicas,
        }));
    }
    all
}
