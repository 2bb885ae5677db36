//! Errors in TOML files that a person wrote: they point at file, line and field.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

/// What is wrong in a TOML file, and where.
#[derive(Debug)]
pub(crate) struct TomlError {
    file: PathBuf,
    line: usize,
    field: Option<String>,
    reason: String,
}

impl TomlError {
    /// Something wrong at `span` of the file's `text`.
    pub(crate) fn at(file: &Path, text: &str, span: Range<usize>, reason: impl Into<String>) -> Self {
        let start = (0..=span.start.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        let before = &text[..start];
        let line = before.matches('\n').count() + 1;
        let source_line = text.lines().nth(line - 1).unwrap_or_default();
        let field = source_line.split_once('=').map(|(key, _)| key.trim().to_owned());
        let is_key = |key: &String| {
            !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
        };
        Self { file: file.to_owned(), line, field: field.filter(is_key), reason: reason.into() }
    }
}

impl fmt::Display for TomlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.file.display(), self.line)?;
        match &self.field {
            Some(field) if !self.reason.contains(&format!("`{field}`")) => {
                write!(f, "field `{field}`: {}", self.reason)
            }
            _ => f.write_str(&self.reason),
        }
    }
}

/// Parses a TOML file's text.
pub(crate) fn parse_toml<T: DeserializeOwned>(file: &Path, text: &str) -> Result<T, TomlError> {
    toml::from_str(text).map_err(|error| {
        let span = error.span().unwrap_or(0..0);
        TomlError::at(file, text, span, error.message().replace('\n', "; "))
    })
}
