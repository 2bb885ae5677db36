//! All documents but images, decoded: what a plan is made from. Kept current by applying the store's
//! changes to it.

use std::collections::BTreeMap;
use std::sync::Arc;

use hvm_types::{DeploymentName, HostId, HostSpec};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{
    AssignmentDocument, DeploymentDocument, DocumentError, GroupKey, Home, OwnershipDocument, decode, key,
};
use crate::store::{Change, CoordinationStore, Entry, LeaseId, Revision, StoreError};

/// A document, and the transaction that wrote it.
#[derive(Debug, Clone)]
pub(crate) struct Versioned<T> {
    pub(crate) revision: Revision,
    pub(crate) value: Arc<T>,
}

/// That a host's lease holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AliveDocument {
    /// The mark of the agent's data directory; empty where it has none.
    pub(crate) data_id: String,
}

/// Whose data directory it is that a host has; kept when its lease ends. Only Join reads it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DataDocument {
    /// The mark of the agent's data directory.
    pub(crate) data_id: String,
}

/// All that is stored of one host but its [`DataDocument`].
#[derive(Debug, Clone, Default)]
pub(crate) struct HostRecord {
    pub(crate) spec: Option<Versioned<HostSpec>>,
    pub(crate) alive: Option<(Versioned<AliveDocument>, Option<LeaseId>)>,
    pub(crate) assignments: Option<Versioned<AssignmentDocument>>,
}

/// All documents but images.
#[derive(Debug, Clone, Default)]
pub(crate) struct World {
    pub(crate) deployments: BTreeMap<DeploymentName, Versioned<DeploymentDocument>>,
    pub(crate) ownership: BTreeMap<GroupKey, Versioned<OwnershipDocument>>,
    pub(crate) hosts: BTreeMap<HostId, HostRecord>,
    /// Everything up to here is in.
    pub(crate) revision: Revision,
}

/// Why the documents could not be loaded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Document(#[from] DocumentError),
}

impl World {
    /// Reads everything.
    pub(crate) async fn load(store: &dyn CoordinationStore) -> Result<Self, LoadError> {
        let mut world = Self::default();
        let mut oldest = None;
        for prefix in [key::DEPLOYMENTS, key::OWNERSHIP, key::HOSTS] {
            let listing = store.list(prefix).await?;
            oldest = oldest.min(Some(listing.revision)).or(Some(listing.revision));
            for entry in listing.entries {
                world.put(entry)?;
            }
        }
        world.revision = oldest.unwrap_or_default();
        Ok(world)
    }

    /// Takes in one change. One that is older than what is known already changes nothing.
    pub(crate) fn apply(&mut self, change: Change) -> Result<(), DocumentError> {
        self.revision = self.revision.max(change.revision());
        match change {
            Change::Put(entry) => self.put(entry),
            Change::Delete { key, revision } => {
                self.delete(&key, revision);
                Ok(())
            }
        }
    }

    fn put(&mut self, entry: Entry) -> Result<(), DocumentError> {
        if let Some(name) = entry.key.strip_prefix(key::DEPLOYMENTS) {
            replace(self.deployments.entry(name_in(&entry.key, name)?), &entry)
        } else if let Some(name) = entry.key.strip_prefix(key::OWNERSHIP) {
            replace(self.ownership.entry(name_in(&entry.key, name)?), &entry)
        } else if let Some(rest) = entry.key.strip_prefix(key::HOSTS) {
            let (id, part) = rest.split_once('/').unwrap_or((rest, ""));
            let host = self.hosts.entry(name_in(&entry.key, id)?).or_default();
            match part {
                key::SPEC => set(&mut host.spec, &entry),
                key::ASSIGNMENTS => set(&mut host.assignments, &entry),
                key::ALIVE => {
                    let known = host.alive.as_ref().map(|(alive, _)| alive.revision);
                    if known < Some(entry.revision) {
                        host.alive = Some((versioned(&entry)?, entry.lease));
                    }
                    Ok(())
                }
                key::DATA => Ok(()),
                _ => Err(DocumentError { key: entry.key.clone(), reason: "no such document".to_owned() }),
            }
        } else {
            Ok(())
        }
    }

    /// Where state lies that the host had last.
    pub(crate) fn homes_of<'a>(&'a self, host: &HostId) -> impl Iterator<Item = &'a Home> {
        let homes = self.ownership.values().flat_map(|document| &document.value.homes);
        homes.flatten().filter(move |home| home.host == *host)
    }

    /// Whether the host has orders to delete state.
    pub(crate) fn has_purges(&self, host: &HostId) -> bool {
        let assignments = self.hosts.get(host).and_then(|record| record.assignments.as_ref());
        assignments.is_some_and(|document| !document.value.purge.is_empty())
    }

    fn delete(&mut self, deleted: &str, revision: Revision) {
        if let Some(Ok(name)) = deleted.strip_prefix(key::DEPLOYMENTS).map(str::parse::<DeploymentName>) {
            if self.deployments.get(&name).is_some_and(|document| document.revision <= revision) {
                self.deployments.remove(&name);
            }
        } else if let Some(Ok(name)) = deleted.strip_prefix(key::OWNERSHIP).map(str::parse::<GroupKey>) {
            if self.ownership.get(&name).is_some_and(|document| document.revision <= revision) {
                self.ownership.remove(&name);
            }
        } else if let Some((id, part)) =
            deleted.strip_prefix(key::HOSTS).and_then(|rest| rest.split_once('/'))
            && let Ok(id) = id.parse::<HostId>()
            && let Some(host) = self.hosts.get_mut(&id)
        {
            match part {
                key::SPEC => host.spec.take_if(|spec| spec.revision <= revision).map(drop),
                key::ASSIGNMENTS => host.assignments.take_if(|a| a.revision <= revision).map(drop),
                key::ALIVE => host.alive.take_if(|(alive, _)| alive.revision <= revision).map(drop),
                _ => None,
            };
        }
    }
}

fn name_in<T: std::str::FromStr<Err: std::fmt::Display>>(key: &str, name: &str) -> Result<T, DocumentError> {
    name.parse().map_err(|reason: T::Err| DocumentError { key: key.to_owned(), reason: reason.to_string() })
}

fn versioned<T: DeserializeOwned>(entry: &Entry) -> Result<Versioned<T>, DocumentError> {
    Ok(Versioned { revision: entry.revision, value: Arc::new(decode(&entry.key, &entry.value)?) })
}

fn set<T: DeserializeOwned>(slot: &mut Option<Versioned<T>>, entry: &Entry) -> Result<(), DocumentError> {
    if slot.as_ref().is_none_or(|known| known.revision < entry.revision) {
        *slot = Some(versioned(entry)?);
    }
    Ok(())
}

fn replace<K: Ord, T: DeserializeOwned>(
    slot: std::collections::btree_map::Entry<'_, K, Versioned<T>>,
    entry: &Entry,
) -> Result<(), DocumentError> {
    use std::collections::btree_map::Entry as Slot;
    match slot {
        Slot::Vacant(slot) => {
            slot.insert(versioned(entry)?);
        }
        Slot::Occupied(mut slot) => {
            if slot.get().revision < entry.revision {
                slot.insert(versioned(entry)?);
            }
        }
    }
    Ok(())
}
