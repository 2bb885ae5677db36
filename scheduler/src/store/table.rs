//! The tables of the embedded store, and reading and writing them inside one transaction of redb.

use std::time::Duration;

use bytes::Bytes;
use redb::{ReadableTable, TableDefinition, WriteTransaction};

use super::{Change, Entry, LeaseId, Revision, StoreError, Transaction, Write};

/// Key → revision, lease (0: none), value.
pub(super) const ENTRIES: TableDefinition<'_, &str, (u64, u64, &[u8])> = TableDefinition::new("entries");
/// Lease → its time to live in milliseconds.
pub(super) const LEASES: TableDefinition<'_, u64, u64> = TableDefinition::new("leases");
/// Counters by name.
const COUNTERS: TableDefinition<'_, &str, u64> = TableDefinition::new("counters");
const REVISION: &str = "revision";
const LEASE: &str = "lease";

fn failed(source: impl Into<redb::Error>) -> StoreError {
    StoreError::unavailable("use", source.into())
}

/// An entry as redb returns it.
pub(super) fn entry(key: &str, (revision, lease, value): (u64, u64, &[u8])) -> Entry {
    Entry {
        key: key.to_owned(),
        value: Bytes::copy_from_slice(value),
        revision: Revision(revision),
        lease: (lease != 0).then_some(LeaseId(lease)),
    }
}

/// Creates the tables; returns the current revision and all leases.
pub(super) fn prepare(
    transaction: &WriteTransaction,
) -> Result<(Revision, Vec<(LeaseId, Duration)>), StoreError> {
    transaction.open_table(ENTRIES).map_err(failed)?;
    let table = transaction.open_table(LEASES).map_err(failed)?;
    let mut leases = Vec::new();
    for row in table.iter().map_err(failed)? {
        let (id, ttl) = row.map_err(failed)?;
        leases.push((LeaseId(id.value()), Duration::from_millis(ttl.value())));
    }
    let counters = transaction.open_table(COUNTERS).map_err(failed)?;
    let revision = counters.get(REVISION).map_err(failed)?.map_or(0, |value| value.value());
    Ok((Revision(revision), leases))
}

/// Counts one up, and returns the new number.
fn count(transaction: &WriteTransaction, counter: &str) -> Result<u64, StoreError> {
    let mut counters = transaction.open_table(COUNTERS).map_err(failed)?;
    let next = counters.get(counter).map_err(failed)?.map_or(0, |value| value.value()) + 1;
    counters.insert(counter, next).map_err(failed)?;
    Ok(next)
}

/// Checks what the transaction expects and writes what it says.
pub(super) fn apply(
    database: &WriteTransaction,
    transaction: Transaction,
) -> Result<(Revision, Vec<Change>), StoreError> {
    let mut entries = database.open_table(ENTRIES).map_err(failed)?;
    for (key, expected) in transaction.expects {
        let found = entries.get(key.as_str()).map_err(failed)?.map(|value| Revision(value.value().0));
        if found != expected {
            return Err(StoreError::Conflict { key });
        }
    }
    let revision = Revision(count(database, REVISION)?);
    let mut changes = Vec::with_capacity(transaction.writes.len());
    for write in transaction.writes {
        match write {
            Write::Put { key, value, lease } => {
                let row = (revision.0, lease.map_or(0, |lease| lease.0), &value[..]);
                entries.insert(key.as_str(), row).map_err(failed)?;
                changes.push(Change::Put(Entry { key, value, revision, lease }));
            }
            Write::Delete { key } => {
                if entries.remove(key.as_str()).map_err(failed)?.is_some() {
                    changes.push(Change::Delete { key, revision });
                }
            }
        }
    }
    Ok((revision, changes))
}

/// Registers a new lease.
pub(super) fn add_lease(transaction: &WriteTransaction, ttl: Duration) -> Result<LeaseId, StoreError> {
    let id = count(transaction, LEASE)?;
    let millis = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
    transaction.open_table(LEASES).map_err(failed)?.insert(id, millis).map_err(failed)?;
    Ok(LeaseId(id))
}

/// Removes leases and returns the keys that depended on them.
pub(super) fn end_leases(
    transaction: &WriteTransaction,
    ended: &[(LeaseId, Duration)],
) -> Result<Vec<String>, StoreError> {
    let mut leases = transaction.open_table(LEASES).map_err(failed)?;
    for (id, _) in ended {
        leases.remove(id.0).map_err(failed)?;
    }
    let entries = transaction.open_table(ENTRIES).map_err(failed)?;
    let mut keys = Vec::new();
    for row in entries.iter().map_err(failed)? {
        let (key, value) = row.map_err(failed)?;
        let (_, lease, _) = value.value();
        if ended.iter().any(|(id, _)| id.0 == lease) {
            keys.push(key.value().to_owned());
        }
    }
    Ok(keys)
}
