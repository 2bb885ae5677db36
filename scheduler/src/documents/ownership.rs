//! What must be remembered of a group's replicas even while nothing of it runs.

use std::collections::BTreeMap;

use hvm_types::{Epoch, Generation, HostId};
use serde::{Deserialize, Serialize};

/// Epochs used and homes of state. Written before any host document that uses a new epoch, and kept when
/// the deployment is stopped: an epoch is never given twice, and a partition that is deployed again goes
/// where its state lies.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OwnershipDocument {
    /// The highest epoch given to any replica of the group.
    pub epoch: Epoch,
    /// The newest generation of the deployment when it was last stopped; the next one is above it.
    pub generation: Generation,
    /// Version of the layout of the state, as its last writer had it.
    pub state_schema: u32,
    /// The host of each partition's state, by number; empty where the group has none.
    #[serde(with = "homes")]
    pub homes: Vec<Option<HostId>>,
}

impl OwnershipDocument {
    /// Where the state of a partition lies, where it has any.
    #[must_use]
    pub fn home(&self, index: u32) -> Option<&HostId> {
        self.homes.get(usize::try_from(index).ok()?)?.as_ref()
    }

    /// Remembers where the state of a partition lies.
    ///
    /// # Panics
    /// Where the group has more copies than memory has addresses.
    pub fn set_home(&mut self, index: u32, copies: u32, host: &HostId) {
        let copies = usize::try_from(copies).expect("copies fit the address space");
        if self.homes.len() < copies {
            self.homes.resize(copies, None);
        }
        self.homes[usize::try_from(index).expect("copies fit the address space")] = Some(host.clone());
    }

    /// Forgets where the state of a partition lay: it is deleted.
    pub fn clear_home(&mut self, index: u32) {
        if let Some(home) = usize::try_from(index).ok().and_then(|at| self.homes.get_mut(at)) {
            *home = None;
        }
        if self.homes.iter().all(Option::is_none) {
            self.homes.clear();
        }
    }

    /// The partitions with state, by their hosts.
    #[must_use]
    pub fn by_home(&self) -> BTreeMap<&HostId, Vec<u32>> {
        let mut by_home: BTreeMap<&HostId, Vec<u32>> = BTreeMap::new();
        for (index, home) in (0..).zip(&self.homes) {
            if let Some(host) = home {
                by_home.entry(host).or_default().push(index);
            }
        }
        by_home
    }
}

/// Homes as stored: each host's name once, then a small number per partition (0: none, n: the n-th host).
mod homes {
    use std::collections::HashMap;

    use hvm_types::HostId;
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    struct Stored {
        hosts: Vec<HostId>,
        of: Vec<usize>,
    }

    pub(super) fn serialize<S: Serializer>(homes: &[Option<HostId>], to: S) -> Result<S::Ok, S::Error> {
        let mut numbers: HashMap<&HostId, usize> = HashMap::new();
        let mut stored = Stored { hosts: Vec::new(), of: Vec::with_capacity(homes.len()) };
        for home in homes {
            stored.of.push(home.as_ref().map_or(0, |host| {
                *numbers.entry(host).or_insert_with(|| {
                    stored.hosts.push(host.clone());
                    stored.hosts.len()
                })
            }));
        }
        stored.serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Option<HostId>>, D::Error> {
        let stored = Stored::deserialize(from)?;
        let home = |number: &usize| match number.checked_sub(1) {
            None => Ok(None),
            Some(at) => {
                stored.hosts.get(at).cloned().map(Some).ok_or_else(|| D::Error::custom("a home has no host"))
            }
        };
        stored.of.iter().map(home).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::documents::{decode, encode};

    #[test]
    fn homes_of_sixty_thousand_partitions_fit_a_transaction() {
        let hosts: Vec<HostId> =
            (0..1_000).map(|i| format!("host-{i}").parse().expect("a valid name")).collect();
        let mut document = OwnershipDocument { epoch: Epoch(3), ..OwnershipDocument::default() };
        for (index, host) in (0..65_536).zip(hosts.iter().cycle()) {
            if index % 7 != 0 {
                document.set_home(index, 65_536, host);
            }
        }
        let bytes = encode(&document);
        assert!(bytes.len() < crate::store::MAX_TRANSACTION_BYTES / 2, "{} bytes", bytes.len());
        assert_eq!(decode::<OwnershipDocument>("k", &bytes).expect("what was written"), document);
        assert_eq!(document.home(0), None);
        assert_eq!(document.home(8), Some(&hosts[8]));
    }
}
