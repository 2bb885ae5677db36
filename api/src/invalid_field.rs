//! The one error of reading a message.

use std::fmt::Display;

/// A field of a message that does not hold what it must.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("field {field}: {reason}")]
pub struct InvalidField {
    /// Where it stands, such as `assignments[3].replica`.
    pub field: String,
    /// What is wrong with it.
    pub reason: String,
}

impl InvalidField {
    /// `field` does not hold what it must.
    pub fn new(field: impl Into<String>, reason: impl Display) -> Self {
        Self { field: field.into(), reason: reason.to_string() }
    }

    /// A message that must be there is missing.
    pub(crate) fn missing(field: &str) -> Self {
        Self::new(field, "it is missing")
    }

    /// The same error, seen from the message that holds this one in `outer`.
    #[must_use]
    pub fn within(self, outer: impl Display) -> Self {
        Self { field: format!("{outer}.{}", self.field), reason: self.reason }
    }
}

impl From<InvalidField> for tonic::Status {
    fn from(error: InvalidField) -> Self {
        Self::invalid_argument(error.to_string())
    }
}
