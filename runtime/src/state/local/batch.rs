//! What one batch writes, and what it leaves of each partition.

use std::collections::HashMap;

use super::layout::{self, BUCKETS, Chain, Number};
use super::stage::Newest;
use super::store::Writes;

/// Writes that become durable together.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) writes: Writes,
    /// Partitions as this batch leaves them; `None` is removed.
    pub(super) newest: HashMap<Number, Option<Newest>>,
}

impl Batch {
    /// Bytes that it adds to the journal, about.
    pub(super) fn bytes(&self) -> u64 {
        const ITEM_BYTES: usize = 32;
        let bytes: usize = self
            .writes
            .iter()
            .map(|(place, value)| ITEM_BYTES + place.key.len() + value.as_ref().map_or(0, Vec::len))
            .sum();
        bytes as u64
    }

    /// Closes it with its link of the chain, which is returned.
    pub(super) fn close(&mut self, chain: Chain) -> Chain {
        let mut chain = Chain { count: chain.count + 1, ..chain };
        let mut spaces: Vec<usize> = self.writes.keys().map(|place| place.space).collect();
        spaces.dedup();
        for space in spaces.into_iter().filter(|space| *space < BUCKETS) {
            chain.marks[space] = chain.count;
            self.writes.insert(layout::mark(space), Some(chain.count.to_le_bytes().to_vec()));
        }
        self.writes.insert(layout::chain(), Some(chain.to_bytes().to_vec()));
        chain
    }
}
