//! Third phase: replicas without a living owner get one. Hosts only fill here.

use crate::documents::Home;
use crate::planner::draft::Draft;
use crate::planner::fleet::Fleet;
use crate::planner::group::Group;
use crate::planner::{HostRefusal, StepAction, WaitReason};

pub(super) fn run(groups: &mut [Group<'_>], fleet: &mut Fleet<'_>, draft: &mut Draft) {
    for group in groups {
        for index in group.indexes() {
            let owner = group.owner(index).map(|owner| owner.host);
            if let Some(host) = owner.filter(|host| fleet.input(*host).alive) {
                if let Some(from) = draft.seen(fleet, host).waits_for(&group.key, index).cloned()
                    && !group.is_touched(index)
                {
                    let reason = WaitReason::HandedOver { host: from };
                    let host = Some(fleet.id(host).clone());
                    group.touch(draft, index, StepAction::Wait { host, reason });
                }
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
    let home = match lost_owner {
        Some(host) if group.stateful() => Some(group.home_with(fleet, index, host)),
        _ => group.home(index),
    };
    if let Some(home) = home {
        return find_host_with_state(group, fleet, index, home);
    }
    group.choose(fleet, index, true).ok_or_else(|| {
        let refusals = group.refusals(fleet, None);
        match lost_owner {
            Some(host) => WaitReason::HostLost { host: fleet.id(host).clone(), refusals },
            None => WaitReason::NoHostFits { refusals },
        }
    })
}

/// A host that reaches the state of a partition: the one that had it last, where that takes it; another one only where
/// the state is in a store that it reaches too.
fn find_host_with_state(
    group: &mut Group<'_>,
    fleet: &Fleet<'_>,
    index: u32,
    home: Home,
) -> Result<usize, WaitReason> {
    let refusal = match fleet.number(&home.host) {
        Some(host) if fleet.store(host) != home.store.as_ref() => HostRefusal::OtherStore,
        Some(host) => match group.refusal(fleet, host) {
            None => return Ok(host),
            Some(refusal) => refusal,
        },
        None => HostRefusal::Lost,
    };
    let Home { host, store } = home;
    let Some(store) = store else { return Err(WaitReason::StateOn { host, refusal }) };
    group.choose_in(fleet, index, &store, true).ok_or_else(|| {
        let refusals = group.refusals(fleet, Some(&store));
        WaitReason::StateIn { store, host, refusals }
    })
}
