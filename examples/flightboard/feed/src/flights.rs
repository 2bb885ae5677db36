//! The flights file, and the journal of a feed.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

/// One flight, as it stands in the file and in the request.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Flight {
    pub(crate) date: String,
    /// Minutes; negative where it left early.
    pub(crate) delay: i64,
    /// Miles.
    pub(crate) distance: i64,
    pub(crate) origin: String,
    pub(crate) destination: String,
}

/// Reads a flights file.
pub(crate) fn read(path: &Path) -> anyhow::Result<Vec<Flight>> {
    let text = std::fs::read(path).with_context(|| format!("can't read {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("{} is no array of flights", path.display()))
}

/// What became of the flights of a feed, by their number in the file.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    pub(crate) acked: BTreeSet<usize>,
    pub(crate) sent: BTreeSet<usize>,
}

impl Journal {
    /// Reads a journal; an absent file is an empty one.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let mut journal = Self::default();
        if !path.exists() {
            return Ok(journal);
        }
        for line in std::fs::read_to_string(path)?.lines() {
            match line.split_once(' ') {
                Some(("acked", number)) => journal.acked.insert(number.parse()?),
                Some(("sent", number)) => journal.sent.insert(number.parse()?),
                _ => bail!("{}: `{line}` is no line of a journal", path.display()),
            };
        }
        journal.sent.retain(|number| !journal.acked.contains(number));
        Ok(journal)
    }

    /// Writes it.
    pub(crate) fn write(&self, path: &Path) -> anyhow::Result<()> {
        let acked = self.acked.iter().map(|number| format!("acked {number}\n"));
        let sent = self.sent.iter().map(|number| format!("sent {number}\n"));
        std::fs::write(path, acked.chain(sent).collect::<String>())
            .with_context(|| format!("can't write {}", path.display()))
    }
}
