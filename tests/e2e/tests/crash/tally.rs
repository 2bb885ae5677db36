//! What was done and seen, counted.

use std::collections::BTreeMap;
use std::fmt;

use brittle_disk::Cut;

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
    /// What each cut of the power took.
    pub(crate) cuts: Vec<Cut>,
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
        self.cuts.extend(&other.cuts);
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
        )?;
        if self.cuts.is_empty() {
            return Ok(());
        }
        let sum = |of: fn(&Cut) -> usize| self.cuts.iter().map(of).sum::<usize>();
        write!(
            f,
            "\n{} cuts of the power found something not synced {} times: {} changes of names and sizes, of which {} were \
             lost, and {} pages, of which {} were lost and {} torn",
            self.cuts.len(),
            self.cuts.iter().filter(|cut| cut.changes.0 + cut.pages.0 > 0).count(),
            sum(|cut| cut.changes.0),
            sum(|cut| cut.changes.1),
            sum(|cut| cut.pages.0),
            sum(|cut| cut.pages.1),
            sum(|cut| cut.torn),
        )
    }
}
