//! The hosts while a plan is made: what each has left.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use hvm_types::{Constraint, ConstraintOperator, GroupSpec, HostId, HostSpec, StoreId};

use super::seed::GroupSeed;
use super::{HostInput, HostRefusal, Refusal};

/// Most replicas of one host: what its document can hold in one transaction of the store.
pub(super) const MAX_REPLICAS_PER_HOST: u32 = 65_536;
/// How many hosts a replica considers.
const CANDIDATES: u32 = 8;
/// Parts of a host's capacity, for comparing loads.
const WHOLE: u64 = 1_000_000;

/// What one replica needs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Demand {
    pub(super) cpu_mhz: u64,
    pub(super) memory_mb: u64,
}

impl Demand {
    pub(super) fn of(group: &GroupSpec) -> Self {
        group.tasks.iter().fold(Self::default(), |sum, task| Self {
            cpu_mhz: sum.cpu_mhz + u64::from(task.resources.reserved_cpu().0),
            memory_mb: sum.memory_mb + u64::from(task.resources.memory),
        })
    }
}

/// One host, and what is used of it.
#[derive(Debug)]
pub(super) struct FleetHost<'a> {
    pub(super) input: HostInput<'a>,
    used: Demand,
    replicas: u32,
}

impl FleetHost<'_> {
    fn capacity(&self) -> Demand {
        Demand { cpu_mhz: u64::from(self.input.spec.cpu.0), memory_mb: self.input.spec.memory }
    }

    /// Why `demand` does not fit, `None` where it does.
    fn lacks(&self, demand: Demand) -> Option<HostRefusal> {
        let capacity = self.capacity();
        let free_mb = capacity.memory_mb.saturating_sub(self.used.memory_mb);
        let free_mhz = capacity.cpu_mhz.saturating_sub(self.used.cpu_mhz);
        if self.replicas >= MAX_REPLICAS_PER_HOST {
            Some(HostRefusal::Full)
        } else if demand.memory_mb > free_mb {
            Some(HostRefusal::NoMemory { needs_mb: demand.memory_mb, free_mb })
        } else if demand.cpu_mhz > free_mhz {
            Some(HostRefusal::NoCpu { needs_mhz: demand.cpu_mhz, free_mhz })
        } else {
            None
        }
    }

    /// How full it is with `demand` added: the fuller of its two resources.
    fn load_with(&self, demand: Demand) -> u64 {
        let capacity = self.capacity();
        let part = |used: u64, of: u64| used.saturating_mul(WHOLE) / of.max(1);
        let cpu = part(self.used.cpu_mhz + demand.cpu_mhz, capacity.cpu_mhz);
        cpu.max(part(self.used.memory_mb + demand.memory_mb, capacity.memory_mb))
    }

    fn reserve(&mut self, demand: Demand) {
        self.used.cpu_mhz += demand.cpu_mhz;
        self.used.memory_mb += demand.memory_mb;
        self.replicas += 1;
    }

    fn release(&mut self, demand: Demand) {
        self.used.cpu_mhz -= demand.cpu_mhz;
        self.used.memory_mb -= demand.memory_mb;
        self.replicas -= 1;
    }
}

/// All hosts, sorted by name; a host's place here is its number.
#[derive(Debug)]
pub(super) struct Fleet<'a> {
    pub(super) hosts: Vec<FleetHost<'a>>,
    numbers: HashMap<&'a HostId, usize>,
    /// The living hosts that satisfy constraints, by the constraints' text: groups that ask for the same
    /// share one list.
    eligible: HashMap<String, Arc<[usize]>>,
}

/// What a replica's place is chosen by.
pub(super) struct Wish<'a> {
    pub(super) demand: Demand,
    pub(super) eligible: &'a [usize],
    /// Replicas of its group per host, for spreading them.
    pub(super) neighbours: &'a HashMap<usize, u32>,
    pub(super) seed: GroupSeed,
    pub(super) index: u32,
}

impl<'a> Fleet<'a> {
    pub(super) fn new(hosts: &[HostInput<'a>]) -> Self {
        let mut hosts: Vec<_> = hosts
            .iter()
            .map(|input| FleetHost { input: *input, used: Demand::default(), replicas: 0 })
            .collect();
        hosts.sort_by_key(|host| &host.input.spec.id);
        let numbers = hosts.iter().enumerate().map(|(number, host)| (&host.input.spec.id, number)).collect();
        Self { hosts, numbers, eligible: HashMap::new() }
    }

    pub(super) fn number(&self, host: &HostId) -> Option<usize> {
        self.numbers.get(host).copied()
    }

    pub(super) fn id(&self, number: usize) -> &'a HostId {
        &self.hosts[number].input.spec.id
    }

    /// The store of a host's partitions; `None` where that is its own disk.
    pub(super) fn store(&self, number: usize) -> Option<&'a StoreId> {
        self.hosts[number].input.spec.store.as_ref()
    }

    /// A host and those that share its store with it.
    pub(super) fn sharing(&self, host: usize) -> impl Iterator<Item = usize> + '_ {
        let store = self.store(host);
        (0..self.hosts.len())
            .filter(move |other| *other == host || store.is_some() && self.store(*other) == store)
    }

    pub(super) fn input(&self, number: usize) -> HostInput<'a> {
        self.hosts[number].input
    }

    pub(super) fn reserve(&mut self, number: usize, demand: Demand) {
        self.hosts[number].reserve(demand);
    }

    pub(super) fn release(&mut self, number: usize, demand: Demand) {
        self.hosts[number].release(demand);
    }

    /// The living hosts that satisfy `constraints`.
    pub(super) fn eligible(&mut self, constraints: &[Constraint]) -> Arc<[usize]> {
        let text = format!("{constraints:?}");
        if let Some(known) = self.eligible.get(&text) {
            return Arc::clone(known);
        }
        let takes =
            |host: &FleetHost<'_>| host.input.alive && excluding(host.input.spec, constraints).is_none();
        let list: Arc<[usize]> =
            self.hosts.iter().enumerate().filter(|(_, host)| takes(host)).map(|(number, _)| number).collect();
        self.eligible.insert(text, Arc::clone(&list));
        list
    }

    /// Whether a host does not satisfy `constraints`.
    pub(super) fn excludes(&self, number: usize, constraints: &[Constraint]) -> bool {
        excluding(self.hosts[number].input.spec, constraints).is_some()
    }

    /// Why a host does not take `demand`, `None` where it does.
    pub(super) fn refusal(
        &self,
        number: usize,
        constraints: &[Constraint],
        demand: Demand,
    ) -> Option<HostRefusal> {
        let host = &self.hosts[number];
        if !host.input.alive {
            return Some(HostRefusal::Lost);
        }
        excluding(host.input.spec, constraints).or_else(|| host.lacks(demand))
    }

    /// The best of a few hosts that follow from the replica's name; where none of these has room, the next
    /// in `eligible` that has. `cursor` remembers where in it everything before is known to be full: keep it
    /// for replicas of one demand while nothing is released.
    pub(super) fn choose(&self, wish: &Wish<'_>, cursor: &mut usize) -> Option<usize> {
        let count = wish.eligible.len();
        let all = count <= usize::try_from(CANDIDATES).unwrap_or(usize::MAX);
        let draws = if all { u32::try_from(count).unwrap_or(CANDIDATES) } else { CANDIDATES };
        let candidate = |draw: u32| {
            let number = if all { u64::from(draw) } else { wish.seed.number(wish.index, draw) };
            let at = number % u64::try_from(count).unwrap_or(u64::MAX).max(1);
            wish.eligible[usize::try_from(at).expect("below the number of hosts")]
        };
        let score = |(draw, number): (u32, usize)| {
            let load = self.hosts[number].load_with(wish.demand);
            let neighbours = wish.neighbours.get(&number).copied().unwrap_or(0);
            (load, neighbours, Reverse(wish.seed.number(wish.index, CANDIDATES + draw)), number)
        };
        let fits = |number: usize| self.hosts[number].lacks(wish.demand).is_none();
        let best = (0..draws)
            .map(|draw| (draw, candidate(draw)))
            .filter(|(_, number)| fits(*number))
            .min_by_key(|drawn| score(*drawn));
        if let Some((_, number)) = best {
            return Some(number);
        }
        while let Some(&number) = wish.eligible.get(*cursor) {
            if fits(number) {
                return Some(number);
            }
            *cursor += 1;
        }
        None
    }

    /// Why no host takes a replica: one entry per class, in the order of their first hosts. Where its state is in
    /// `store`, the others are out of the question.
    pub(super) fn refusals(
        &self,
        constraints: &[Constraint],
        demand: Demand,
        store: Option<&StoreId>,
        purging: impl Fn(usize) -> bool,
    ) -> Arc<[Refusal]> {
        let mut classes: Vec<Refusal> = Vec::new();
        for number in 0..self.hosts.len() {
            let elsewhere = store.filter(|store| self.store(number) != Some(store));
            let purging = || purging(number).then_some(HostRefusal::Purging);
            let why = match elsewhere {
                Some(_) => Some(HostRefusal::OtherStore),
                None => self.refusal(number, constraints, demand).or_else(purging),
            };
            let Some(why) = why else { continue };
            match classes.iter_mut().find(|class| same_class(&class.why, &why)) {
                Some(class) => {
                    class.hosts += 1;
                    keep_more_free(&mut class.why, why);
                }
                None => classes.push(Refusal { why, hosts: 1, example: self.id(number).clone() }),
            }
        }
        classes.into()
    }
}

/// The first constraint that a host does not satisfy.
fn excluding(host: &HostSpec, constraints: &[Constraint]) -> Option<HostRefusal> {
    let holds = |constraint: &&Constraint| {
        let value = host.attributes.get(&constraint.attribute);
        let listed = value.is_some_and(|value| constraint.value.contains(value));
        match constraint.operator {
            ConstraintOperator::In => listed,
            ConstraintOperator::NotIn => !listed,
        }
    };
    let broken = constraints.iter().find(|constraint| !holds(constraint))?;
    Some(HostRefusal::Excluded { constraint: broken.clone() })
}

fn same_class(a: &HostRefusal, b: &HostRefusal) -> bool {
    match (a, b) {
        (HostRefusal::Excluded { .. }, HostRefusal::Excluded { .. }) => a == b,
        _ => std::mem::discriminant(a) == std::mem::discriminant(b),
    }
}

fn keep_more_free(kept: &mut HostRefusal, other: HostRefusal) {
    match (kept, other) {
        (HostRefusal::NoCpu { free_mhz: kept, .. }, HostRefusal::NoCpu { free_mhz, .. }) => {
            *kept = (*kept).max(free_mhz);
        }
        (HostRefusal::NoMemory { free_mb: kept, .. }, HostRefusal::NoMemory { free_mb, .. }) => {
            *kept = (*kept).max(free_mb);
        }
        _ => {}
    }
}
