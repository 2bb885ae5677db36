//! Third phase: replicas without a living owner get one. Hosts only fill here.

use crate::planner::draft::Draft;
use crate::planner::fleet::Fleet;
use crate::planner::group::Group;
use crate::planner::{HostRefusal, StepAction, WaitReason};

pub(super) fn run(groups: &mut [Group<'_>], fleet: &mut Fleet<'_>, draft: &mut Draft) {
    for group in groups {
        for index in group.indexes() {
            let owner = group.owner(index).map(|owner| owner.host);
            if owner.is_some_and(|host| fleet.input(host).alive) {
                continue;
            }
            match find_host(group, fleet, index, owner) {
                Ok(host) => group.place(fleet, draft, index, host),
                Err(reason) => {
                    let host = owner.map(|host| fleet.id(host).clone());
                    group.touch(draft, index, StepAction::Wait { host, reason });
                }
            }
        }
    }
}

/// A host for a replica whose owner is lost, or that has none.
fn find_host(
    group: &mut Group<'_>,
    fleet: &Fleet<'_>,
    index: u32,
    lost_owner: Option<usize>,
) -> Result<usize, WaitReason> {
    if fleet.hosts.is_empty() {
        return Err(WaitReason::NoHosts);
    }
    // State can't follow its partition: only the host that has it will do.
    let home = match lost_owner {
        Some(host) if group.stateful() => Some(fleet.id(host)),
        _ => group.home(index),
    };
    if let Some(home) = home {
        let refusal = match fleet.number(home) {
            Some(host) => match group.refusal(fleet, host) {
                None => return Ok(host),
                Some(refusal) => refusal,
            },
            None => HostRefusal::Lost,
        };
        return Err(WaitReason::StateOn { host: home.clone(), refusal });
    }
    group.choose(fleet, index, true).ok_or_else(|| {
        let refusals = group.refusals(fleet);
        match lost_owner {
            Some(host) => WaitReason::HostLost { host: fleet.id(host).clone(), refusals },
            None => WaitReason::NoHostFits { refusals },
        }
    })
}
