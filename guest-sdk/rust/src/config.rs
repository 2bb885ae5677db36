//! The values that the deployment sets. Capability `config`.

use std::fmt;

use crate::bindings::wasi::config::store;

/// The host could not read its configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// The host's words.
    pub reason: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the configuration can't be read: {}", self.reason)
    }
}

impl std::error::Error for Error {}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        let (store::Error::Upstream(reason) | store::Error::Io(reason)) = error;
        Self { reason }
    }
}

/// The value of a key; `None` where the deployment sets none.
///
/// # Errors
/// The host could not read its configuration.
pub fn get(key: &str) -> Result<Option<String>, Error> {
    Ok(store::get(key)?)
}

/// All keys and their values.
///
/// # Errors
/// The host could not read its configuration.
pub fn get_all() -> Result<Vec<(String, String)>, Error> {
    Ok(store::get_all()?)
}
