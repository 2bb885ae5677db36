//! What the clients of a simulation saw, and the rules that it must keep.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use hvm_types::{Epoch, ReplicaId, Sequence};

use super::toy::records;
use crate::state::shared::image::Image;

/// What was seen, shared by all clients.
#[derive(Clone, Default)]
pub(super) struct History(Rc<RefCell<Seen>>);

#[derive(Default)]
struct Seen {
    acknowledged: BTreeMap<ReplicaId, Vec<Acknowledged>>,
    opened: BTreeMap<ReplicaId, Vec<(Epoch, Sequence)>>,
    broken: Vec<String>,
    commits: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Acknowledged {
    epoch: Epoch,
    sequence: Sequence,
    key: String,
}

impl History {
    /// The broken rules.
    pub(super) fn broken(&self) -> Vec<String> {
        self.0.borrow().broken.clone()
    }

    /// Acknowledged records and answered openings.
    pub(super) fn counts(&self) -> (u64, usize) {
        let seen = self.0.borrow();
        (seen.commits, seen.opened.values().map(Vec::len).sum())
    }

    /// How many records of a partition were acknowledged until now.
    pub(super) fn mark(&self, id: &ReplicaId) -> usize {
        self.0.borrow().acknowledged.get(id).map_or(0, Vec::len)
    }

    /// State was found damaged, though nothing damages it.
    pub(super) fn damage(&self, id: &ReplicaId, what: &str) {
        self.0.borrow_mut().broken.push(format!("{id}: {what}"));
    }

    /// A record was acknowledged.
    pub(super) fn acknowledge(&self, id: &ReplicaId, epoch: Epoch, sequence: Sequence, key: &str) {
        let mut seen = self.0.borrow_mut();
        let seen = &mut *seen;
        seen.commits += 1;
        let this = Acknowledged { epoch, sequence, key: key.to_owned() };
        let before = seen.acknowledged.entry(id.clone()).or_default();
        for other in before.iter() {
            if other.sequence == sequence {
                seen.broken.push(format!("{id}: one sequence twice: {other:?}, {this:?}"));
            }
            if other.key == key {
                seen.broken.push(format!("{id}: one key twice: {other:?}, {this:?}"));
            }
            if (other.epoch < epoch) != (other.sequence < sequence) && other.epoch != epoch {
                seen.broken.push(format!("{id}: epoch and sequence disagree: {other:?}, {this:?}"));
            }
        }
        for (opened, from) in seen.opened.get(id).into_iter().flatten() {
            if epoch < *opened && sequence > *from {
                let after = format!("after epoch {opened} was opened at {from}");
                seen.broken.push(format!("{id}: stale record acknowledged {after}: {this:?}"));
            }
        }
        before.push(this);
    }

    /// A partition was opened, with this state. Everything that was acknowledged before the opening was asked
    /// for must be in it, and everything of older epochs that was ever acknowledged.
    pub(super) fn opened(&self, id: &ReplicaId, epoch: Epoch, mark: usize, image: &Image) {
        let mut seen = self.0.borrow_mut();
        let seen = &mut *seen;
        seen.opened.entry(id.clone()).or_default().push((epoch, image.sequence));
        let found = records(image);
        let dense = found.iter().zip(1..).all(|((sequence, ..), expected)| sequence.0 == expected);
        if !dense || found.len() as u64 != image.sequence.0 {
            seen.broken.push(format!("{id}: epoch {epoch} found gaps: {found:?}"));
        }
        if found.windows(2).any(|pair| pair[0].1 > pair[1].1) {
            seen.broken.push(format!("{id}: epoch {epoch} found older epochs after newer ones: {found:?}"));
        }
        let mut keys: Vec<_> = found.iter().map(|(_, _, key)| key).collect();
        keys.sort();
        if keys.windows(2).any(|pair| pair[0] == pair[1]) {
            seen.broken.push(format!("{id}: epoch {epoch} found a key that was applied twice: {found:?}"));
        }
        for (index, record) in seen.acknowledged.get(id).into_iter().flatten().enumerate() {
            let (sequence, owner, key) = (record.sequence, record.epoch, record.key.clone());
            let must = owner < epoch || (owner == epoch && index < mark);
            if must && !found.contains(&(sequence, owner, key)) {
                seen.broken.push(format!("{id}: epoch {epoch} does not find the acknowledged {record:?}"));
            }
        }
    }
}
