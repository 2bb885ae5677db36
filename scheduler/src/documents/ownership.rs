//! What must be remembered of a group's replicas even while nothing of it runs.

use std::collections::BTreeMap;

use hvm_types::{Epoch, Generation, HostId, StoreId};
use serde::{Deserialize, Serialize};

/// Where the state of a partition lies.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Home {
    /// The host that had it last.
    pub host: HostId,
    /// The store that it is in, which other hosts may reach too; `None`: the host's own disk.
    pub store: Option<StoreId>,
}

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
    /// Where each partition's state lies, by number; empty where the group has none.
    #[serde(with = "homes")]
    pub homes: Vec<Option<Home>>,
}

impl OwnershipDocument {
    /// Where the state of a partition lies, where it has any.
    #[must_use]
    pub fn home(&self, index: u32) -> Option<&Home> {
        self.homes.get(usize::try_from(index).ok()?)?.as_ref()
    }

    /// Remembers where the state of a partition lies.
    ///
    /// # Panics
    /// Where the group has more copies than memory has addresses.
    pub fn set_home(&mut self, index: u32, copies: u32, home: Home) {
        let copies = usize::try_from(copies).expect("copies fit the address space");
        if self.homes.len() < copies {
            self.homes.resize(copies, None);
        }
        self.homes[usize::try_from(index).expect("copies fit the address space")] = Some(home);
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

    /// The partitions with state, by where it lies.
    #[must_use]
    pub fn by_home(&self) -> BTreeMap<&Home, Vec<u32>> {
        let mut by_home: BTreeMap<&Home, Vec<u32>> = BTreeMap::new();
        for (index, home) in (0..).zip(&self.homes) {
            if let Some(home) = home {
                by_home.entry(home).or_default().push(index);
            }
        }
        by_home
    }
}

/// Homes as stored: each home once, then a small number per partition (0: none, n: the n-th home).
mod homes {
    use std::collections::HashMap;

    use hvm_types::{HostId, StoreId};
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::Home;

    #[derive(Serialize, Deserialize)]
    struct Stored {
        hosts: Vec<HostId>,
        /// The store of each of `hosts`; empty where all have their own disk.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        stores: Vec<Option<StoreId>>,
        of: Vec<usize>,
    }

    pub(super) fn serialize<S: Serializer>(homes: &[Option<Home>], to: S) -> Result<S::Ok, S::Error> {
        let mut numbers: HashMap<&Home, usize> = HashMap::new();
        let mut stored =
            Stored { hosts: Vec::new(), stores: Vec::new(), of: Vec::with_capacity(homes.len()) };
        for home in homes {
            stored.of.push(home.as_ref().map_or(0, |home| {
                *numbers.entry(home).or_insert_with(|| {
                    stored.hosts.push(home.host.clone());
                    stored.stores.push(home.store.clone());
                    stored.hosts.len()
                })
            }));
        }
        if stored.stores.iter().all(Option::is_none) {
            stored.stores.clear();
        }
        stored.serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Option<Home>>, D::Error> {
        let Stored { hosts, stores, of } = Stored::deserialize(from)?;
        let home = |number: &usize| match number.checked_sub(1) {
            None => Ok(None),
            Some(at) => {
                let host = hosts.get(at).cloned().ok_or_else(|| D::Error::custom("a home has no host"))?;
                Ok(Some(Home { host, store: stores.get(at).cloned().flatten() }))
            }
        };
        of.iter().map(home).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::documents::{decode, encode};

    #[test]
    fn homes_of_sixty_thousand_partitions_fit_a_transaction() {
        let store =
            |i: u32| (!i.is_multiple_of(3)).then(|| format!("{i:032x}").parse().expect("a valid name"));
        let host = |i: u32| format!("host-{i}").parse().expect("a valid name");
        let hosts: Vec<Home> = (0..1_000).map(|i| Home { host: host(i), store: store(i) }).collect();
        let mut document = OwnershipDocument { epoch: Epoch(3), ..OwnershipDocument::default() };
        for (index, host) in (0..65_536).zip(hosts.iter().cycle()) {
            if index % 7 != 0 {
                document.set_home(index, 65_536, host.clone());
            }
        }
        let bytes = encode(&document);
        assert!(bytes.len() < crate::store::MAX_TRANSACTION_BYTES / 2, "{} bytes", bytes.len());
        assert_eq!(decode::<OwnershipDocument>("k", &bytes).expect("what was written"), document);
        assert_eq!(document.home(0), None);
        assert_eq!(document.home(8), Some(&hosts[8]));
    }

    #[test]
    fn homes_that_were_written_before_there_were_stores_are_disks_of_hosts() {
        let stored = r#"{"epoch":1,"generation":0,"state_schema":1,"homes":{"hosts":["a"],"of":[1,0]}}"#;
        let document: OwnershipDocument = serde_json::from_str(stored).expect("a document");
        let home = Home { host: "a".parse().expect("a valid name"), store: None };
        assert_eq!(document.homes, [Some(home), None]);
        assert_eq!(serde_json::to_string(&document).expect("JSON"), stored, "and they are written as before");
    }
}
