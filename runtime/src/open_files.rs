//! How the files that the process may have open are shared out. A connection is one, so whoever may open connections
//! without end would leave none for anybody else: the API, state, images, the processes that compile.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Below this nothing is shared out: the host does not start.
const LEAST: u64 = 256;
/// With fewer, connections are refused before anything else is scarce.
const WANTED: u64 = 16_384;
/// What is nobody's share: threads, listeners and journals (40 measured), logs (64), calls of the API, images on their
/// way, pipes to the processes that compile.
const OF_PROCESS: u64 = 128;
/// Each worker has a table and memory for so many connections of clients.
const MOST_CLIENTS_PER_WORKER: u64 = 8_192;
/// Connections from guests to elsewhere.
const MOST_OUTGOING: u64 = 2_048;
/// Tables of state that stay open.
const MOST_TABLES: u64 = 900;
/// The state engine takes no fewer.
const LEAST_TABLES: u64 = 10;

/// The files that this process may have open (`ulimit -n`), and the shares of who opens many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenFiles(u64);

impl OpenFiles {
    /// The limit as it is.
    #[must_use]
    pub fn read() -> Self {
        Self(getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX))
    }

    /// Raises the limit to what the process may raise it to (setrlimit(2)): it is often 1,024 for the sake of programs
    /// that use select(2). The processes that this one starts inherit it.
    pub fn raise() -> Self {
        let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
        // A refusal leaves what there is, which is then shared out.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
        Self::read()
    }

    /// Another limit than that of this process.
    #[must_use]
    pub const fn of(limit: u64) -> Self {
        Self(limit)
    }

    /// Whether a host can do without what is missing.
    ///
    /// # Errors
    /// What to change where it can't.
    pub fn check(self) -> Result<(), TooFewFiles> {
        if self.0 < LEAST { Err(TooFewFiles { allowed: self.0 }) } else { Ok(()) }
    }

    /// Connections that clients may have open to each of so many workers: half of what is shared out.
    #[must_use]
    pub fn clients_per_worker(self, workers: usize) -> usize {
        let workers = u64::try_from(workers).unwrap_or(u64::MAX).max(1);
        count((self.shared() / 2 / workers).min(MOST_CLIENTS_PER_WORKER))
    }

    /// Requests that each of so many workers may have passed on to other hosts: a quarter. Each takes a connection, and
    /// perhaps another to ask whether the host still lives.
    #[must_use]
    pub fn forwarded_per_worker(self, workers: usize) -> usize {
        count(
            (self.shared() / 8 / u64::try_from(workers).unwrap_or(u64::MAX).max(1))
                .min(MOST_CLIENTS_PER_WORKER),
        )
    }

    /// Connections that guests may have open to elsewhere: an eighth.
    pub(crate) fn outgoing(self) -> usize {
        count((self.shared() / 8).min(MOST_OUTGOING))
    }

    /// Tables of state that stay open: an eighth.
    pub(crate) fn tables(self) -> usize {
        count((self.shared() / 8).clamp(LEAST_TABLES, MOST_TABLES))
    }

    /// What holds this host back, and how to change it.
    pub(crate) fn advice(self) -> Option<String> {
        (self.0 < WANTED).then(|| {
            format!(
                "at most {} open files, and so {} connections of clients at a time: run `ulimit -n {WANTED}` before \
                 (systemd: `LimitNOFILE={WANTED}`)",
                self.0,
                self.clients_per_worker(1)
            )
        })
    }

    fn shared(self) -> u64 {
        self.0.saturating_sub(OF_PROCESS).max(16)
    }
}

fn count(files: u64) -> usize {
    usize::try_from(files).unwrap_or(usize::MAX).max(1)
}

/// The process may have too few files open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "start with at most {allowed} open files: a host needs {LEAST} at least; run `ulimit -n {WANTED}` before \
     (systemd: `LimitNOFILE={WANTED}`)"
)]
pub struct TooFewFiles {
    /// The limit.
    pub allowed: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_shares_together_leave_room_for_the_process() {
        for limit in [LEAST, 1_024, 4_096, 20_000, 1 << 20, u64::MAX] {
            for workers in [1, 2, 7, 16] {
                let files = OpenFiles::of(limit);
                assert_eq!(files.check(), Ok(()));
                let taken = workers
                    * (files.clients_per_worker(workers) + 2 * files.forwarded_per_worker(workers))
                    + files.outgoing()
                    + files.tables();
                assert!(taken as u64 + OF_PROCESS <= limit, "{limit} files, {workers} workers: {taken}");
            }
        }
        assert_eq!(OpenFiles::of(1 << 20).clients_per_worker(2), 8_192);
        assert_eq!(OpenFiles::of(256).clients_per_worker(2), 32);
    }

    #[test]
    fn too_few_are_refused_and_few_are_advised_against_with_what_to_change() {
        let refusal = OpenFiles::of(LEAST - 1).check().expect_err("too few").to_string();
        assert!(refusal.contains("255") && refusal.contains("ulimit -n 16384"), "{refusal}");
        let advice = OpenFiles::of(1_024).advice().expect("few");
        assert!(advice.contains("448 connections") && advice.contains("ulimit -n 16384"), "{advice}");
        assert_eq!(OpenFiles::of(WANTED).advice(), None);
    }

    #[test]
    fn the_limit_is_raised_to_what_is_allowed() {
        let raised = OpenFiles::raise();
        assert_eq!(Some(raised.0), getrlimit(Resource::Nofile).maximum.or(Some(u64::MAX)));
    }
}
