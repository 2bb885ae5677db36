//! What a person gets when a command fails: what is wrong, and what to do next.

use std::error::Error;
use std::fmt;
use std::path::Path;

/// A failed command: `error: …`, and `hint: …` where there is more to say.
#[derive(Debug)]
pub(crate) struct Failure {
    error: String,
    hint: Option<String>,
}

impl Failure {
    /// A failure for this reason.
    pub(crate) fn new(error: impl Into<String>) -> Self {
        Self { error: error.into(), hint: None }
    }

    /// With the file that it is about, where the reason does not say so.
    pub(crate) fn in_file(mut self, path: &Path) -> Self {
        let path = path.display().to_string();
        if !self.error.contains(&path) {
            self.error = format!("{path}: {}", self.error);
        }
        self
    }

    /// With what to do next.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "error: {}", self.error)?;
        self.hint.iter().try_for_each(|hint| writeln!(f, "hint: {hint}"))
    }
}

/// The error and what caused it, each once.
impl<E: Error> From<E> for Failure {
    fn from(error: E) -> Self {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        Self::new(text)
    }
}
