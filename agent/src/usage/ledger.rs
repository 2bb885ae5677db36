//! The sums, the windows that are remembered, and the one that is open.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hvm_runtime::{Hvm, UsedSince};
use hvm_types::ReplicaId;

use super::Window;
use super::journal::{Journal, UsageError};

/// Windows that are remembered: an hour of them.
const MAX_WINDOWS: usize = 720;
/// Rows of partitions in all remembered windows; where there are more, fewer windows are.
const MAX_ROWS: usize = 100_000;
/// Partitions that are remembered in the sums; of further ones that are gone, what they used counts as the host's.
const MAX_PARTITIONS: usize = 200_000;

/// The books of one host.
#[derive(Debug)]
pub(crate) struct UsageLedger {
    /// Held from asking the HVM to adding what it said: what is given out must not be lost in between.
    asking: tokio::sync::Mutex<()>,
    books: Mutex<Books>,
    journal: Mutex<Journal>,
}

/// What was used, for showing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct UsageReport {
    /// What was used in all, from its beginning to its end.
    pub(crate) sum: Window,
    /// Bytes of durable state that each partition held when it was last seen.
    pub(crate) stored_bytes: BTreeMap<ReplicaId, u64>,
    /// The end of the last window that a crash does not lose.
    pub(crate) durable_unix_millis: u64,
}

#[derive(Debug)]
struct Books {
    /// The sum of all windows that are durable.
    durable: Window,
    stored_bytes: BTreeMap<ReplicaId, u64>,
    /// The newest of those that are durable.
    windows: VecDeque<Window>,
    rows: usize,
    /// The window that is being made durable.
    ending: Option<Arc<Window>>,
    open: Window,
}

impl UsageLedger {
    /// Reads the books in `folder`, or begins them now.
    pub(crate) fn open(folder: PathBuf, unix_millis: u64) -> Result<Self, UsageError> {
        let (journal, kept) = Journal::open(folder, Window::starting_at(unix_millis))?;
        let mut books = Books {
            durable: kept.sum.unwrap_or_else(|| Window::starting_at(unix_millis)),
            stored_bytes: BTreeMap::new(),
            windows: VecDeque::new(),
            rows: 0,
            ending: None,
            open: Window::starting_at(unix_millis),
        };
        kept.windows.into_iter().for_each(|window| books.remember(window));
        Ok(Self {
            asking: tokio::sync::Mutex::default(),
            books: Mutex::new(books),
            journal: Mutex::new(journal),
        })
    }

    /// Takes over what was used until now.
    pub(crate) async fn sample(&self, hvm: &Hvm) {
        let _one_at_a_time = self.asking.lock().await;
        self.add(&hvm.drain_usage().await, unix_millis());
    }

    fn add(&self, used: &UsedSince, unix_millis: u64) {
        self.books().add(used, unix_millis);
    }

    /// What was used until the last sample: in the windows that end after this time, or in all.
    pub(crate) fn report(&self, since_unix_millis: Option<u64>) -> UsageReport {
        let books = self.books();
        let sum = match since_unix_millis {
            None => books.unsettled().fold(Some(books.durable.clone()), Window::joined),
            Some(since) => books.since(since).fold(None, Window::joined),
        };
        let sum = sum.unwrap_or_default();
        let durable_unix_millis = books.durable.to_unix_millis;
        UsageReport { sum, stored_bytes: books.stored_bytes.clone(), durable_unix_millis }
    }

    /// The windows that end after this time, with the one that is open.
    pub(crate) fn windows(&self, since_unix_millis: u64) -> Vec<Window> {
        self.books().since(since_unix_millis).cloned().collect()
    }

    /// Ends the window and makes it durable. Where that fails it stays open, and goes with the next. Blocks on the
    /// disk.
    pub(crate) fn end_window(&self) -> Result<(), UsageError> {
        // The journal's lock goes first, so that two windows can't end at once.
        let mut journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        let ended = {
            let mut books = self.books();
            let next = Window::starting_at(books.open.to_unix_millis);
            let ended = Arc::new(std::mem::replace(&mut books.open, next));
            books.ending = Some(Arc::clone(&ended));
            ended
        };
        let appended = journal.append(&ended, || self.books().durable.clone());
        self.books().settle(ended, appended.is_ok());
        appended
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Books {
    fn add(&mut self, used: &UsedSince, unix_millis: u64) {
        self.open.add(used, unix_millis);
        for partition in &used.partitions {
            self.stored_bytes.insert(partition.id.clone(), partition.stored.0);
        }
    }

    /// Takes a window that has ended, or takes it back where it is not durable.
    fn settle(&mut self, ended: Arc<Window>, is_durable: bool) {
        self.ending = None;
        let mut ended = Arc::unwrap_or_clone(ended);
        if !is_durable {
            ended.join(&self.open);
            self.open = ended;
            return;
        }
        self.durable.join(&ended);
        self.durable.bound(MAX_PARTITIONS, |id| self.open.partitions.contains_key(id));
        if self.stored_bytes.len() > MAX_PARTITIONS {
            let known = &self.durable.partitions;
            self.stored_bytes.retain(|id, _| known.contains_key(id));
        }
        self.remember(ended);
    }

    fn remember(&mut self, window: Window) {
        self.rows += window.partitions.len();
        self.windows.push_back(window);
        while self.windows.len() > MAX_WINDOWS || self.rows > MAX_ROWS {
            let Some(oldest) = self.windows.pop_front() else { break };
            self.rows -= oldest.partitions.len();
        }
    }

    /// The windows that are not durable.
    fn unsettled(&self) -> impl Iterator<Item = &Window> {
        self.ending.as_deref().into_iter().chain(std::iter::once(&self.open))
    }

    fn since(&self, unix_millis: u64) -> impl Iterator<Item = &Window> {
        let all = self.windows.iter().chain(self.unsettled());
        all.filter(move |window| window.to_unix_millis > unix_millis && !window.is_empty())
    }
}

impl Window {
    fn joined(sum: Option<Self>, next: &Self) -> Option<Self> {
        let Some(mut sum) = sum else { return Some(next.clone()) };
        sum.join(next);
        Some(sum)
    }
}

/// Milliseconds since 1970.
pub(crate) fn unix_millis() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use hvm_runtime::PartitionUsage;
    use hvm_types::{ByteSize, Meter};

    use super::*;

    fn used(partitions: &[(&str, u64)], host: u64) -> UsedSince {
        let millis = Duration::from_millis;
        let all: u64 = partitions.iter().map(|(_, count)| count).sum();
        let partitions = partitions.iter().map(|(id, count)| PartitionUsage {
            id: id.parse().expect("a replica"),
            meter: Meter { succeeded: *count, cpu: millis(*count), ..Meter::default() },
            stored: ByteSize(*count),
        });
        UsedSince {
            partitions: partitions.collect(),
            host_cpu: millis(host),
            process_cpu: millis(all + host),
        }
    }

    fn ledger(dir: &tempfile::TempDir) -> UsageLedger {
        UsageLedger::open(dir.path().to_owned(), 1_000).expect("readable")
    }

    fn count(report: &UsageReport, id: &str) -> u64 {
        report.sum.partitions.get(&id.parse().expect("a replica")).map_or(0, |meter| meter.succeeded)
    }

    #[test]
    fn a_crash_loses_the_open_window_and_nothing_else() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let first = ledger(&dir);
        first.add(&used(&[("d/g/0", 10)], 3), 2_000);
        first.end_window().expect("durable");
        first.add(&used(&[("d/g/0", 2), ("d/g/1", 1)], 1), 3_000);
        assert_eq!(
            (count(&first.report(None), "d/g/0"), first.report(None).durable_unix_millis),
            (12, 2_000)
        );
        drop(first); // killed

        let next = UsageLedger::open(dir.path().to_owned(), 9_000).expect("readable");
        let report = next.report(None);
        assert_eq!((count(&report, "d/g/0"), count(&report, "d/g/1")), (10, 0));
        assert_eq!(report.sum.from_unix_millis, 1_000);
        next.add(&used(&[("d/g/0", 5)], 0), 10_000);
        assert_eq!(count(&next.report(None), "d/g/0"), 15);
        assert_eq!(next.windows(0).len(), 2, "the windows before the crash are still there");
    }

    #[test]
    fn rows_and_host_sum_to_the_process_in_every_window_and_in_all() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let ledger = ledger(&dir);
        for round in 1..=4 {
            ledger.add(&used(&[("d/g/0", round), ("d/g/1", 2 * round)], round), 1_000 + round * 1_000);
            ledger.end_window().expect("durable");
        }
        let all = ledger.report(None).sum;
        let late = ledger.report(Some(3_000)).sum;
        assert_eq!((late.from_unix_millis, late.to_unix_millis), (3_000, 5_000));
        assert_eq!(late.process_cpu, Duration::from_millis(4 * (3 + 4)));
        for window in ledger.windows(0).iter().chain([&all, &late]) {
            let rows: Duration = window.partitions.values().map(|meter| meter.cpu).sum();
            assert_eq!(rows + window.host_cpu, window.process_cpu);
        }
        assert_eq!(ledger.report(Some(9_000)), UsageReport { sum: Window::default(), ..ledger.report(None) });
    }

    #[test]
    fn a_window_that_the_disk_refused_goes_with_the_next() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let ledger = ledger(&dir);
        ledger.add(&used(&[("d/g/0", 1)], 0), 2_000);
        let ended = std::mem::replace(&mut ledger.books().open, Window::starting_at(2_000));
        // As if the journal had not taken it.
        ledger.books().settle(Arc::new(ended), false);
        ledger.add(&used(&[("d/g/0", 2)], 0), 3_000);
        ledger.end_window().expect("durable");
        assert_eq!(count(&self::ledger(&dir).report(None), "d/g/0"), 3);
        assert_eq!(ledger.windows(0)[0].from_unix_millis, 1_000);
    }

    #[test]
    fn the_number_of_remembered_rows_is_bounded() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let ledger = ledger(&dir);
        let ids: Vec<String> = (0..MAX_ROWS / 2).map(|index| format!("d/g/{index}")).collect();
        let rows: Vec<_> = ids.iter().map(|id| (id.as_str(), 1)).collect();
        for round in 1..=3 {
            ledger.add(&used(&rows, 0), round * 1_000);
            ledger.end_window().expect("durable");
        }
        assert_eq!(ledger.windows(0).len(), 2);
        assert_eq!(count(&ledger.report(None), "d/g/0"), 3, "the sums remember");
    }
}
