//! One thing that is wrong with a deployment: where, what, and what to do about it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Longest piece of the author's text that a message repeats, in characters.
const MAX_SHOWN_CHARS: usize = 80;

/// A mistake in a deployment. Displayed as `line:column: field: problem; advice`, as far as known; with its
/// file in front by [`SpecError::in_file`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub struct SpecError {
    /// Where it stands in the file; `None` where there was no file to look into.
    pub place: Option<Place>,
    /// Path of the field, such as `jobs[0].groups[0].partitions`; empty for the whole file.
    pub field: String,
    /// What is wrong.
    pub problem: String,
    /// What to do.
    pub advice: String,
}

/// A place in a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Place {
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// Characters of that line that the mistake covers, at least 1: what a renderer underlines.
    pub width: u32,
}

impl fmt::Display for SpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", escaped(&self.field))?;
        }
        write!(f, "{}; {}", self.problem, self.advice)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

impl SpecError {
    /// The message with the name of its file: `file:line:column: field: problem; advice`.
    #[must_use]
    pub fn in_file(&self, file: &str) -> String {
        let separator = if self.place.is_some() { ":" } else { ": " };
        format!("{}{separator}{self}", escaped(file))
    }

    pub(super) fn new(
        field: impl Into<String>,
        problem: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self { place: None, field: field.into(), problem: problem.into(), advice: advice.into() }
    }
}

/// The author's own text in backticks, cut, and with nothing in it that a terminal would obey.
pub(super) fn shown(text: &str) -> String {
    let mut cut: String = text.chars().take(MAX_SHOWN_CHARS).collect();
    if text.chars().nth(MAX_SHOWN_CHARS).is_some() {
        cut.push('…');
    }
    format!("`{}`", escaped(&cut))
}

/// The text with its control characters written as escapes.
pub(super) fn escaped(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            let control = c.is_control();
            let escape = control.then(|| c.escape_default()).into_iter().flatten();
            escape.chain((!control).then_some(c))
        })
        .collect()
}
