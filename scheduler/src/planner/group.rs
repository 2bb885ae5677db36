//! One group while a plan is made.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use hvm_types::{Epoch, Generation, GroupSpec, ReplicaState, StoreId};

use super::draft::Draft;
use super::fleet::{Demand, Fleet, Wish};
use super::seed::GroupSeed;
use super::{HostRefusal, PlanInput, Refusal, RemoveReason, StepAction};
use crate::documents::{DeploymentDocument, GroupKey, Home, Ownership, OwnershipDocument};

/// Who owns a replica.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owner {
    pub(super) host: usize,
    pub(super) ownership: Ownership,
}

/// A wanted group.
#[derive(Debug)]
pub(super) struct Group<'a> {
    pub(super) key: Arc<GroupKey>,
    pub(super) spec: &'a GroupSpec,
    pub(super) deployment: &'a DeploymentDocument,
    pub(super) demand: Demand,
    /// By replica number.
    pub(super) owners: Vec<Option<Owner>>,
    /// Hosts that must delete older state of this group first.
    pub(super) purging: BTreeSet<usize>,
    /// Replicas that a step was planned for.
    touched: Vec<bool>,
    neighbours: HashMap<usize, u32>,
    eligible: Arc<[usize]>,
    seed: GroupSeed,
    recorded: OwnershipDocument,
    /// The epoch of all ownerships that begin in this plan.
    new_epoch: Option<Epoch>,
    /// How far [`Fleet::choose`] found hosts to be full.
    cursor: usize,
    /// Of each store that state of the group is in: its eligible hosts, and how far they were found to be full.
    in_store: HashMap<StoreId, (Arc<[usize]>, usize)>,
    refusals: HashMap<Option<StoreId>, Arc<[Refusal]>>,
}

/// What a replica of `group` needs at `generation`, as it was asked then, if that is still known.
pub(super) fn demand_at(
    deployment: &DeploymentDocument,
    group: &hvm_types::GroupName,
    generation: Generation,
) -> Demand {
    let accepted = deployment.accepted(generation).unwrap_or(&deployment.current);
    accepted.group(group).or_else(|| deployment.current.group(group)).map(Demand::of).unwrap_or_default()
}

impl<'a> Group<'a> {
    pub(super) fn new(
        key: GroupKey,
        spec: &'a GroupSpec,
        deployment: &'a DeploymentDocument,
        input: &PlanInput<'a>,
        fleet: &mut Fleet<'a>,
    ) -> Self {
        let copies = usize::try_from(spec.copies()).expect("copies fit the address space");
        Self {
            demand: Demand::of(spec),
            owners: vec![None; copies],
            purging: BTreeSet::new(),
            touched: vec![false; copies],
            neighbours: HashMap::new(),
            eligible: fleet.eligible(&spec.constraints),
            seed: GroupSeed::new(&key),
            recorded: input.ownership.get(&key).map(|document| (*document).clone()).unwrap_or_default(),
            new_epoch: None,
            cursor: 0,
            in_store: HashMap::new(),
            refusals: HashMap::new(),
            key: Arc::new(key),
            spec,
            deployment,
        }
    }

    pub(super) const fn stateful(&self) -> bool {
        self.spec.is_partitioned()
    }

    pub(super) fn generation(&self) -> Generation {
        self.deployment.current.generation
    }

    /// The numbers of all its replicas.
    pub(super) fn indexes(&self) -> std::ops::Range<u32> {
        0..self.spec.copies()
    }

    pub(super) fn owner(&self, index: u32) -> Option<Owner> {
        self.owners[at(index)]
    }

    /// Counts the owners that were found, once all are.
    pub(super) fn settle_owners(&mut self, fleet: &mut Fleet<'_>, draft: &mut Draft) {
        // Purges that were done have cleared homes since the group was begun.
        if let Some(document) = draft.ownership.get(&*self.key) {
            self.recorded.clone_from(document);
        }
        for index in self.indexes() {
            let Some(owner) = self.owner(index) else { continue };
            fleet.reserve(owner.host, self.demand_of(owner));
            *self.neighbours.entry(owner.host).or_default() += 1;
            if self.stateful() {
                let home = self.home_with(fleet, index, owner.host);
                if self.recorded.home(index) != Some(&home) {
                    self.record(draft, |document, copies| document.set_home(index, copies, home));
                }
            }
        }
        if !self.purging.is_empty() {
            self.eligible =
                self.eligible.iter().copied().filter(|host| !self.purging.contains(host)).collect();
        }
    }

    /// What the replica needs at the generation that it runs.
    pub(super) fn demand_of(&self, owner: Owner) -> Demand {
        demand_at(self.deployment, &self.key.group, owner.ownership.generation)
    }

    /// Where the state of a partition without an owner lies.
    pub(super) fn home(&self, index: u32) -> Option<Home> {
        self.recorded.home(index).filter(|_| self.stateful()).cloned()
    }

    /// Where the state of a partition lies that `host` owns. The store is the one in which it was when the host got it.
    pub(super) fn home_with(&self, fleet: &Fleet<'_>, index: u32, host: usize) -> Home {
        let known = self.recorded.home(index).filter(|home| home.host == *fleet.id(host));
        known
            .cloned()
            .unwrap_or_else(|| Home { host: fleet.id(host).clone(), store: fleet.store(host).cloned() })
    }

    /// Why a host does not take one of its replicas.
    pub(super) fn refusal(&self, fleet: &Fleet<'_>, host: usize) -> Option<HostRefusal> {
        let purging = self.purging.contains(&host).then_some(HostRefusal::Purging);
        fleet.refusal(host, &self.spec.constraints, self.demand).or(purging)
    }

    /// Why no host takes one of its replicas, of those whose state is in `store`.
    pub(super) fn refusals(&mut self, fleet: &Fleet<'_>, store: Option<&StoreId>) -> Arc<[Refusal]> {
        let Self { refusals, spec, demand, purging, .. } = self;
        let make = || fleet.refusals(&spec.constraints, *demand, store, |host| purging.contains(&host));
        Arc::clone(refusals.entry(store.cloned()).or_insert_with(make))
    }

    /// A host for a replica. Give `remember` while hosts only fill: then hosts found full are not asked
    /// again.
    pub(super) fn choose(&mut self, fleet: &Fleet<'_>, index: u32, remember: bool) -> Option<usize> {
        let mut cursor = if remember { self.cursor } else { 0 };
        let chosen = fleet.choose(&self.wish(&self.eligible, index), &mut cursor);
        if remember {
            self.cursor = cursor;
        }
        chosen
    }

    /// A host that reaches `store`, for a partition whose state is there. For `remember` see [`Self::choose`].
    pub(super) fn choose_in(
        &mut self,
        fleet: &Fleet<'_>,
        index: u32,
        store: &StoreId,
        remember: bool,
    ) -> Option<usize> {
        let (hosts, known) = self.in_store.get(store).cloned().unwrap_or_else(|| {
            let reaches = |host: &usize| fleet.store(*host) == Some(store);
            (self.eligible.iter().copied().filter(reaches).collect(), 0)
        });
        let mut cursor = if remember { known } else { 0 };
        let chosen = fleet.choose(&self.wish(&hosts, index), &mut cursor);
        self.in_store.insert(store.clone(), (hosts, if remember { cursor } else { known }));
        chosen
    }

    fn wish<'w>(&'w self, eligible: &'w [usize], index: u32) -> Wish<'w> {
        let Self { demand, ref neighbours, seed, .. } = *self;
        Wish { demand, eligible, neighbours, seed, index }
    }

    /// Gives a replica to `host`, and takes it from the owner it had.
    pub(super) fn place(&mut self, fleet: &mut Fleet<'_>, draft: &mut Draft, index: u32, host: usize) {
        let old = self.owner(index);
        if let Some(old) = old {
            fleet.release(old.host, self.demand_of(old));
            draft.remove(fleet, old.host, &self.key, index);
            if let Some(count) = self.neighbours.get_mut(&old.host) {
                *count -= 1;
            }
            let host = fleet.id(old.host).clone();
            draft.step(&self.key, index, StepAction::Remove { host, why: RemoveReason::Moved });
        }
        let lets_go = old.filter(|old| self.stateful() && fleet.input(old.host).alive);
        let epoch = self.next_epoch();
        let ownership = Ownership { generation: self.generation(), epoch };
        fleet.reserve(host, self.demand);
        *self.neighbours.entry(host).or_default() += 1;
        draft.assign(fleet, host, &self.key, index, ownership);
        if let Some(old) = lets_go {
            let waits = &mut draft.host(fleet, host).waits;
            waits.entry((*self.key).clone()).or_default().insert(index, fleet.id(old.host).clone());
        }
        self.owners[at(index)] = Some(Owner { host, ownership });
        let id = fleet.id(host).clone();
        let stateful = self.stateful();
        let home = Home { host: id.clone(), store: fleet.store(host).cloned() };
        self.record(draft, |document, copies| {
            document.epoch = epoch;
            if stateful {
                document.set_home(index, copies, home);
            }
        });
        let action = StepAction::Place { host: id, generation: ownership.generation, epoch };
        self.touch(draft, index, action);
    }

    /// Gives new epochs to owners whose state has seen a higher one than theirs. That epoch was given before
    /// the coordination store lost it: without a new one the state would refuse its owner for ever.
    pub(super) fn renew_fenced(&mut self, fleet: &Fleet<'_>, draft: &mut Draft) {
        let mut fenced = Vec::new();
        for index in self.indexes() {
            let Some(owner) = self.owner(index) else { continue };
            let host = fleet.input(owner.host);
            let observed = host.observed.filter(|_| host.alive);
            let Some(report) = observed.and_then(|said| said.replica(&self.key, index)) else { continue };
            let ReplicaState::Fenced { epoch } = report.state else { continue };
            if report.epoch == owner.ownership.epoch && epoch > owner.ownership.epoch {
                self.recorded.epoch = self.recorded.epoch.max(epoch);
                fenced.push((index, owner));
            }
        }
        for (index, Owner { host, mut ownership }) in fenced {
            ownership.epoch = self.next_epoch();
            draft.assign(fleet, host, &self.key, index, ownership);
            self.owners[at(index)] = Some(Owner { host, ownership });
            self.record(draft, |document, _| document.epoch = ownership.epoch);
            let id = fleet.id(host).clone();
            let Ownership { generation, epoch } = ownership;
            self.touch(draft, index, StepAction::Place { host: id, generation, epoch });
        }
    }

    /// Tells a replica's owner to run the current generation.
    pub(super) fn update(&mut self, fleet: &Fleet<'_>, draft: &mut Draft, index: u32) {
        let generation = self.generation();
        let Some(owner) = &mut self.owners[at(index)] else { return };
        let from = std::mem::replace(&mut owner.ownership.generation, generation);
        let Owner { host, ownership } = *owner;
        draft.assign(fleet, host, &self.key, index, ownership);
        let action = StepAction::Update { host: fleet.id(host).clone(), from, to: generation };
        self.touch(draft, index, action);
    }

    /// Plans a step for a replica.
    pub(super) fn touch(&mut self, draft: &mut Draft, index: u32, action: StepAction) {
        self.touched[at(index)] = true;
        draft.step(&self.key, index, action);
    }

    /// Whether a step was planned for a replica.
    pub(super) fn is_touched(&self, index: u32) -> bool {
        self.touched[at(index)]
    }

    /// How many replicas each host keeps without any step.
    pub(super) fn kept(&self) -> HashMap<usize, u32> {
        let mut kept = HashMap::new();
        for (owner, touched) in self.owners.iter().zip(&self.touched) {
            if let (Some(owner), false) = (owner, touched) {
                *kept.entry(owner.host).or_default() += 1;
            }
        }
        kept
    }

    fn next_epoch(&mut self) -> Epoch {
        let Self { new_epoch, recorded, owners, .. } = self;
        *new_epoch.get_or_insert_with(|| {
            let owned = owners.iter().flatten().map(|owner| owner.ownership.epoch);
            owned.fold(recorded.epoch, Epoch::max).next()
        })
    }

    fn record(&mut self, draft: &mut Draft, change: impl FnOnce(&mut OwnershipDocument, u32)) {
        let document = match draft.ownership.get_mut(&*self.key) {
            Some(document) => document,
            None => draft.ownership.entry((*self.key).clone()).or_insert(self.recorded.clone()),
        };
        change(document, self.spec.copies());
    }
}

fn at(index: u32) -> usize {
    usize::try_from(index).expect("copies fit the address space")
}
