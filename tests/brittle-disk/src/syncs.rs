//! What becomes of syncs: they pass, fail, or wait.

use fuser::{Errno, ReplyEmpty};

use crate::names::Number;

/// What is to happen to the syncs of files whose path contains a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SyncRule {
    /// They pass.
    Pass,
    /// The next one fails with EIO, those after it pass.
    FailOnce(String),
    /// They wait until they are let go.
    Hold(String),
    /// They are said to have passed, and nothing was done.
    Lie(String),
}

/// The rule, and who waits.
#[derive(Debug)]
pub(crate) struct Syncs {
    pub(crate) rule: SyncRule,
    pub(crate) held: Vec<(Number, ReplyEmpty)>,
    pub(crate) failed: usize,
}

/// What becomes of one sync.
pub(crate) enum Fate {
    Pass,
    Fail,
    Wait,
    Lie,
}

impl Syncs {
    pub(crate) fn new() -> Self {
        Self { rule: SyncRule::Pass, held: Vec::new(), failed: 0 }
    }

    pub(crate) fn fate(&mut self, path: &str) -> Fate {
        match &self.rule {
            SyncRule::FailOnce(part) if path.contains(part) => {
                self.rule = SyncRule::Pass;
                self.failed += 1;
                Fate::Fail
            }
            SyncRule::Hold(part) if path.contains(part) => Fate::Wait,
            SyncRule::Lie(part) if path.contains(part) => Fate::Lie,
            _ => Fate::Pass,
        }
    }
}

pub(crate) const FAILED: Errno = Errno::EIO;
