//! The meters of this host, durable: what each partition used since it was first seen here, over restarts.
//!
//! The HVM's meter of a partition with state goes on from the value in its last commit; that of a stateless
//! replica begins at zero whenever it is opened. This file adds them up so that nothing counts twice, and a
//! crash loses at most what was used in one window.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hvm_runtime::{Hvm, PartitionUsage, Usage};
use hvm_types::{Meter, ReplicaId};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::data_dir::replace_file;
use crate::reconcile::Registry;

/// How often the meters are made durable: what a crash may lose.
const WINDOW: Duration = Duration::from_secs(5);

/// Partitions that are remembered; of further ones that are gone, what they used counts as the host's own.
const MAX_PARTITIONS: usize = 200_000;

/// The meters of one host.
#[derive(Debug)]
pub(crate) struct UsageLedger {
    path: PathBuf,
    accounts: Mutex<Accounts>,
}

/// Meters that can't be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum UsageError {
    /// The disk refused.
    #[error("read or write the meters in {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is damaged.
    #[error("read the meters in {}: the file is damaged; restore it, or move it away to begin at zero", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

/// What was used, for showing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct UsageReport {
    pub(crate) since_unix_millis: u64,
    pub(crate) partitions: Vec<(ReplicaId, Meter, u64)>,
    /// What the host used beside partitions.
    pub(crate) rest: Meter,
}

/// What stands in the file.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Kept {
    since_unix_millis: u64,
    partitions: BTreeMap<ReplicaId, Meter>,
    rest: Meter,
}

#[derive(Debug, Default)]
struct Accounts {
    since_unix_millis: u64,
    partitions: BTreeMap<ReplicaId, Account>,
    /// The host's own use before this run, and in it.
    rest_before: Meter,
    rest: Meter,
    /// How much of what the HVM counts for closed partitions stands in `partitions`.
    settled_in_run: Meter,
}

/// One partition. Its total is `settled` and `current`.
#[derive(Debug, Default)]
struct Account {
    /// What the HVM's meter does not hold.
    settled: Meter,
    /// The HVM's meter when it was last looked at; zero while the partition is closed.
    current: Meter,
    is_open: bool,
    /// Whether it was open earlier in this run, so that the HVM counts it among the closed ones too.
    was_closed: bool,
    stored_bytes: u64,
}

impl UsageLedger {
    /// Reads the meters in `path`, or begins them at zero now.
    pub(crate) fn open(path: PathBuf, unix_millis: u64) -> Result<Self, UsageError> {
        let kept = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|source| UsageError::Damaged { path: path.clone(), source })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Kept { since_unix_millis: unix_millis, ..Kept::default() }
            }
            Err(source) => return Err(UsageError::Io { path, source }),
        };
        let account = |settled| Account { settled, ..Account::default() };
        let accounts = Accounts {
            since_unix_millis: kept.since_unix_millis,
            partitions: kept.partitions.into_iter().map(|(id, meter)| (id, account(meter))).collect(),
            rest_before: kept.rest,
            ..Accounts::default()
        };
        Ok(Self { path, accounts: Mutex::new(accounts) })
    }

    /// Takes over what the HVM counts now.
    pub(crate) fn sample(&self, hvm: &Hvm, registry: &Registry) {
        // Where the registry does not know it any more the partition is being closed, and was seen before.
        self.take_over(|| hvm.usage(), |replica| registry.is_stateful(replica).unwrap_or(true));
    }

    /// One after another, from the looking on: a meter that is taken over after a newer one looks like that of
    /// a partition opened again, and would count twice.
    fn take_over(&self, look: impl FnOnce() -> Usage, is_stateful: impl Fn(&ReplicaId) -> bool) {
        let mut accounts = self.lock();
        accounts.sample(&look(), is_stateful);
    }

    /// What was used until the last sample.
    pub(crate) fn report(&self) -> UsageReport {
        let accounts = self.lock();
        let partitions = accounts.partitions.iter();
        UsageReport {
            since_unix_millis: accounts.since_unix_millis,
            partitions: partitions
                .map(|(id, account)| (id.clone(), account.total(), account.stored_bytes))
                .collect(),
            rest: accounts.rest(),
        }
    }

    /// Makes the meters durable. Blocks on the disk.
    pub(crate) fn save(&self) -> Result<(), UsageError> {
        let kept = {
            let accounts = self.lock();
            Kept {
                since_unix_millis: accounts.since_unix_millis,
                partitions: accounts
                    .partitions
                    .iter()
                    .map(|(id, account)| (id.clone(), account.total()))
                    .collect(),
                rest: accounts.rest(),
            }
        };
        let bytes = serde_json::to_vec(&kept).expect("meters have only text keys");
        replace_file(&self.path, &bytes).map_err(|source| UsageError::Io { path: self.path.clone(), source })
    }

    fn lock(&self) -> MutexGuard<'_, Accounts> {
        // Samples are taken over partition by partition; each is whole, so a panic in between loses no sum.
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Accounts {
    fn sample(&mut self, usage: &Usage, is_stateful: impl Fn(&ReplicaId) -> bool) {
        let seen: std::collections::BTreeSet<&ReplicaId> = usage.partitions.iter().map(|p| &p.id).collect();
        for (id, account) in &mut self.partitions {
            if account.is_open && !seen.contains(id) {
                self.settled_in_run += &account.close();
            }
        }
        for partition in &usage.partitions {
            let account = self.partitions.entry(partition.id.clone()).or_default();
            if account.is_open && went_back(&account.current, &partition.meter) {
                self.settled_in_run += &account.close();
            }
            if !account.is_open {
                let unseen = account.open(partition, is_stateful(&partition.id));
                if account.was_closed {
                    self.settled_in_run += &unseen;
                }
            }
            account.current = partition.meter.clone();
            account.stored_bytes = partition.stored.0;
        }
        // What partitions used between their last sample and their end is known only as a sum.
        self.rest = usage.host.clone();
        self.rest += &usage.closed.saturating_sub(&self.settled_in_run);
        self.bound();
    }

    fn rest(&self) -> Meter {
        let mut rest = self.rest_before.clone();
        rest += &self.rest;
        rest
    }

    fn bound(&mut self) {
        while self.partitions.len() > MAX_PARTITIONS {
            let gone = self.partitions.iter().find(|(_, account)| !account.is_open).map(|(id, _)| id.clone());
            let Some(account) = gone.and_then(|id| self.partitions.remove(&id)) else { break };
            self.rest_before += &account.total();
        }
    }
}

impl Account {
    fn total(&self) -> Meter {
        let mut total = self.settled.clone();
        total += &self.current;
        total
    }

    /// A partition with state brings along what its commits hold. Most of it was counted here before; what was
    /// not is returned.
    fn open(&mut self, partition: &PartitionUsage, is_stateful: bool) -> Meter {
        self.is_open = true;
        if !is_stateful {
            return Meter::default();
        }
        let unseen = partition.meter.saturating_sub(&self.settled);
        self.settled = self.settled.saturating_sub(&partition.meter);
        unseen
    }

    /// Settles what was seen of it, and returns the HVM's meter of it as far as it was seen.
    fn close(&mut self) -> Meter {
        self.settled = self.total();
        self.is_open = false;
        self.was_closed = true;
        std::mem::take(&mut self.current)
    }
}

/// Whether a meter counts less than before: then it is another one, of a partition that was closed and opened.
fn went_back(before: &Meter, now: &Meter) -> bool {
    before.saturating_sub(now) != Meter::default()
}

/// Samples the HVM and makes the meters durable, window by window.
#[derive(Debug)]
pub(crate) struct UsageLoop {
    stop: watch::Sender<bool>,
    join: JoinHandle<()>,
}

impl UsageLoop {
    pub(crate) fn start(ledger: Arc<UsageLedger>, hvm: Hvm, registry: Arc<Registry>) -> Self {
        let (stop, mut stopped) = watch::channel(false);
        let join = tokio::spawn(async move {
            let mut must_stop = false;
            while !must_stop {
                must_stop = tokio::time::timeout(WINDOW, stopped.wait_for(|stopped| *stopped)).await.is_ok();
                ledger.sample(&hvm, &registry);
                let ledger = Arc::clone(&ledger);
                match tokio::task::spawn_blocking(move || ledger.save()).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => {
                        let reason = crate::failure_text::with_causes(&error);
                        tracing::warn!(
                            reason,
                            "the meters are not durable; they are kept in the next window"
                        );
                    }
                    Err(error) => tracing::error!(%error, "keeping the meters was broken off"),
                }
            }
        });
        Self { stop, join }
    }

    /// Takes a last sample, makes it durable and ends.
    pub(crate) async fn stop(self) {
        self.stop.send_replace(true);
        if self.join.await.is_err() {
            tracing::error!("the usage loop panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use hvm_types::ByteSize;

    use super::*;

    fn meter(succeeded: u64) -> Meter {
        Meter { succeeded, cpu: Duration::from_millis(succeeded), ..Meter::default() }
    }

    fn usage(partitions: &[(&str, u64)], closed: u64, host: u64) -> Usage {
        let partitions = partitions.iter().map(|(id, count)| PartitionUsage {
            id: id.parse().expect("a replica"),
            meter: meter(*count),
            stored: ByteSize(0),
        });
        Usage { partitions: partitions.collect(), closed: meter(closed), host: meter(host) }
    }

    fn total(ledger: &UsageLedger, id: &str) -> u64 {
        let id: ReplicaId = id.parse().expect("a replica");
        let report = ledger.report();
        report.partitions.iter().find(|(other, ..)| *other == id).map_or(0, |(_, meter, _)| meter.succeeded)
    }

    fn ledger(dir: &tempfile::TempDir) -> UsageLedger {
        UsageLedger::open(dir.path().join("usage.json"), 7).expect("readable")
    }

    fn sample(ledger: &UsageLedger, usage: &Usage, stateful: bool) {
        ledger.take_over(|| usage.clone(), |_| stateful);
    }

    #[test]
    fn samples_from_several_threads_count_nothing_twice() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let ledger = ledger(&dir);
        let used = std::sync::atomic::AtomicU64::new(0);
        let look = || {
            let now = used.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1;
            std::thread::yield_now();
            usage(&[("d/g/0", now)], 0, 0)
        };
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..250).for_each(|_| ledger.take_over(look, |_| false)));
            }
        });
        assert_eq!(total(&ledger, "d/g/0"), 1_000);
    }

    #[test]
    fn a_crash_loses_at_most_what_was_not_saved_and_counts_nothing_twice() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let first = ledger(&dir);
        sample(&first, &usage(&[("d/g/0", 10)], 0, 3), true);
        first.save().expect("saved");
        sample(&first, &usage(&[("d/g/0", 12)], 0, 4), true);
        drop(first); // killed

        // Its state holds the meter of its last commit: older than what was saved, or newer.
        for (brought, expected) in [(8, 10), (11, 11)] {
            let next = ledger(&dir);
            sample(&next, &usage(&[("d/g/0", brought)], 0, 0), true);
            assert_eq!(total(&next, "d/g/0"), expected, "brought {brought}");
            sample(&next, &usage(&[("d/g/0", brought + 5)], 0, 1), true);
            assert_eq!(total(&next, "d/g/0"), expected + 5);
            assert_eq!(next.report().rest.succeeded, 4);
            assert_eq!(next.report().since_unix_millis, 7);
        }
    }

    #[test]
    fn a_stateless_replica_begins_at_zero_each_time_and_adds_up() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let ledger = ledger(&dir);
        sample(&ledger, &usage(&[("d/g/0", 10)], 0, 0), false);
        sample(&ledger, &usage(&[("d/g/0", 4)], 10, 0), false);
        sample(&ledger, &usage(&[("d/g/0", 6)], 10, 0), false);
        assert_eq!(total(&ledger, "d/g/0"), 16);
        assert_eq!(ledger.report().rest.succeeded, 0, "what was settled is not the host's");
    }

    #[test]
    fn all_meters_sum_to_what_the_process_used() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let ledger = ledger(&dir);
        sample(&ledger, &usage(&[("d/g/0", 10), ("d/g/1", 5)], 0, 2), false);
        // d/g/0 used two more before it was closed.
        sample(&ledger, &usage(&[("d/g/1", 6)], 12, 3), false);
        let report = ledger.report();
        let sum: u64 = report.partitions.iter().map(|(_, meter, _)| meter.succeeded).sum();
        assert_eq!(sum + report.rest.succeeded, 12 + 6 + 3);
    }

    #[test]
    fn what_a_partition_used_between_its_last_sample_and_its_end_counts_once() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let ledger = ledger(&dir);
        sample(&ledger, &usage(&[("d/g/0", 10)], 0, 0), true);
        sample(&ledger, &usage(&[], 13, 0), true);
        assert_eq!((total(&ledger, "d/g/0"), ledger.report().rest.succeeded), (10, 3));
        // Opened again it brings along all 13, of which the host held 3 meanwhile.
        sample(&ledger, &usage(&[("d/g/0", 14)], 13, 0), true);
        assert_eq!((total(&ledger, "d/g/0"), ledger.report().rest.succeeded), (14, 0));
    }
}
