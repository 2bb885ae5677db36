//! Numbers that look random and are not: which hosts a replica considers follows from its name alone, so
//! that every planner, now and after any restart, considers the same ones.

use crate::documents::GroupKey;

/// FNV-1a, 64 bit (draft-eastlake-fnv, section 2).
const OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;

fn fnv(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(PRIME))
}

/// The finalizer of SplitMix64 (Steele, Lea, Flood 2014): spreads every bit over all.
const fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// The numbers of one group.
#[derive(Debug, Clone, Copy)]
pub(super) struct GroupSeed(u64);

impl GroupSeed {
    pub(super) fn new(group: &GroupKey) -> Self {
        let hash = fnv(OFFSET_BASIS, group.deployment.as_str().as_bytes());
        Self(fnv(fnv(hash, b"/"), group.group.as_str().as_bytes()))
    }

    /// The `draw`-th number of a replica.
    pub(super) const fn number(self, index: u32, draw: u32) -> u64 {
        mix(self.0 ^ mix(((index as u64) << 32) | draw as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_never_change() {
        let seed = GroupSeed::new(&"ledger/accounts".parse().expect("a valid key"));
        assert_eq!(
            seed.number(0, 0),
            GroupSeed::new(&"ledger/accounts".parse().expect("valid")).number(0, 0)
        );
        assert_ne!(seed.number(0, 0), seed.number(1, 0));
        assert_ne!(seed.number(0, 0), seed.number(0, 1));
        assert_eq!(fnv(OFFSET_BASIS, b"a"), 0xaf63_dc4c_8601_ec8c, "the test vector of the draft");
    }

    #[test]
    fn a_thousand_replicas_reach_every_one_of_ten_hosts_about_equally() {
        let seed = GroupSeed::new(&"ledger/accounts".parse().expect("a valid key"));
        let mut reached = [0_u32; 10];
        for index in 0..1_000 {
            reached[usize::try_from(seed.number(index, 0) % 10).expect("below ten")] += 1;
        }
        assert!(reached.iter().all(|n| (60..=140).contains(n)), "{reached:?}");
    }
}
