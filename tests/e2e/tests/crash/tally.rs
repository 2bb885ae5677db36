//! What was done and seen, counted.

use std::collections::BTreeMap;
use std::fmt;

use crate::moment::Phase;

/// The counts of one server's lives, or of several servers together.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally {
    pub(crate) kills: BTreeMap<Phase, usize>,
    /// Kills of a server that had not answered anything since the kill before.
    pub(crate) in_a_row: usize,
    pub(crate) acknowledged: usize,
    pub(crate) refused: usize,
    /// Commands without an answer.
    pub(crate) unanswered: usize,
    /// Of the acknowledged ones, those that an earlier attempt had applied.
    pub(crate) found_applied: usize,
    pub(crate) given_up: usize,
    /// Acknowledged transfers that were sent again.
    pub(crate) repeated: usize,
    pub(crate) histories: usize,
    pub(crate) calls: usize,
    /// Books that the histories may have led to; as many as histories where nothing is left open.
    pub(crate) ends: usize,
}

impl Tally {
    pub(crate) fn kills(&self) -> usize {
        self.kills.values().sum()
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (phase, count) in &other.kills {
            *self.kills.entry(*phase).or_default() += count;
        }
        self.in_a_row += other.in_a_row;
        self.acknowledged += other.acknowledged;
        self.refused += other.refused;
        self.unanswered += other.unanswered;
        self.found_applied += other.found_applied;
        self.given_up += other.given_up;
        self.repeated += other.repeated;
        self.histories += other.histories;
        self.calls += other.calls;
        self.ends += other.ends;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |phase| self.kills.get(&phase).copied().unwrap_or(0);
        writeln!(
            f,
            "{} kills: {} while starting, {} in recovery, {} idle, {} with queries under way, {} with commands under \
             way, {} of them in a sync; {} with nothing answered since the kill before",
            self.kills(),
            count(Phase::Starting),
            count(Phase::Recovering),
            count(Phase::Idle),
            count(Phase::Reading),
            count(Phase::Writing) + count(Phase::Syncing),
            count(Phase::Syncing),
            self.in_a_row,
        )?;
        writeln!(
            f,
            "{} transfers acknowledged, {} refused; {} attempts without an answer, {} of the transfers were found \
             applied when they were sent again, {} were given up; {} acknowledged ones sent again",
            self.acknowledged,
            self.refused,
            self.unanswered,
            self.found_applied,
            self.given_up,
            self.repeated
        )?;
        write!(
            f,
            "{} histories with {} calls have an order, and lead to {} possible books",
            self.histories, self.calls, self.ends
        )
    }
}
