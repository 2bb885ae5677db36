//! The partition's durable state. Capability `keyvalue`.
//!
//! A command reads its own writes; they are committed together with its answer, or not at all. A query sees what was
//! committed when it began, and its writes are refused.

use std::fmt;

use crate::bindings::wasi::keyvalue::{atomics, batch, store};

/// Why the state can't be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// No bucket of this name was granted.
    NoSuchStore,
    /// The bucket may not be used in this way: a query wrote, or the deployment grants less.
    AccessDenied,
    /// The host's words.
    Other {
        /// What went wrong.
        reason: String,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchStore => f.write_str("the deployment grants no such bucket"),
            Self::AccessDenied => f.write_str("the bucket may not be used so: queries can't write"),
            Self::Other { reason } => f.write_str(reason),
        }
    }
}

impl std::error::Error for Error {}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::NoSuchStore => Self::NoSuchStore,
            store::Error::AccessDenied => Self::AccessDenied,
            store::Error::Other(reason) => Self::Other { reason },
        }
    }
}

/// A named collection of keys and values, the partition's own.
#[derive(Debug)]
pub struct Bucket {
    bucket: store::Bucket,
}

/// Opens a bucket. Deployments usually grant one, `default`.
///
/// # Errors
/// [`Error::NoSuchStore`] where the deployment grants no bucket of this name.
pub fn open(name: &str) -> Result<Bucket, Error> {
    Ok(Bucket { bucket: store::open(name)? })
}

/// Every function fails with [`Error::Other`] where the host can't reach the state, and those that write with
/// [`Error::AccessDenied`] in a query.
#[allow(clippy::missing_errors_doc, reason = "said once, above")]
impl Bucket {
    /// A key's value; `None` where it has none.
    pub fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.bucket.get(key)?)
    }

    /// Sets a key's value, whether it had one or not.
    pub fn set(&self, key: &str, value: &[u8]) -> Result<(), Error> {
        Ok(self.bucket.set(key, value)?)
    }

    /// Removes a key; nothing happens where it is absent.
    pub fn delete(&self, key: &str) -> Result<(), Error> {
        Ok(self.bucket.delete(key)?)
    }

    /// Whether a key has a value.
    pub fn exists(&self, key: &str) -> Result<bool, Error> {
        Ok(self.bucket.exists(key)?)
    }

    /// All keys, in the host's order. Costs as much as there are keys.
    pub fn list_keys(&self) -> Result<Vec<String>, Error> {
        let mut page = self.bucket.list_keys(None)?;
        let mut keys = page.keys;
        while let Some(cursor) = page.cursor {
            page = self.bucket.list_keys(Some(cursor))?;
            keys.append(&mut page.keys);
        }
        Ok(keys)
    }

    /// Adds to a counter, which begins at 0, and returns its new value.
    pub fn increment(&self, key: &str, delta: u64) -> Result<u64, Error> {
        Ok(atomics::increment(&self.bucket, key, delta)?)
    }

    /// The values of several keys, `None` for each that has none, in the order asked.
    pub fn get_many(&self, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, Error> {
        let pairs = batch::get_many(&self.bucket, keys)?;
        Ok(pairs.into_iter().map(|pair| pair.map(|(_, value)| value)).collect())
    }

    /// Sets several values.
    pub fn set_many(&self, pairs: &[(String, Vec<u8>)]) -> Result<(), Error> {
        Ok(batch::set_many(&self.bucket, pairs)?)
    }

    /// Removes several keys.
    pub fn delete_many(&self, keys: &[String]) -> Result<(), Error> {
        Ok(batch::delete_many(&self.bucket, keys)?)
    }

    /// A key's value read as JSON.
    #[cfg(feature = "json")]
    pub fn get_json<T: serde::de::DeserializeOwned>(&self, key: &str) -> Result<Option<T>, Error> {
        let Some(value) = self.get(key)? else { return Ok(None) };
        serde_json::from_slice(&value).map(Some).map_err(|error| Error::Other {
            reason: format!("the value of `{key}` is not the expected JSON: {error}"),
        })
    }

    /// Sets a key's value to JSON.
    #[cfg(feature = "json")]
    pub fn set_json<T: serde::Serialize>(&self, key: &str, value: &T) -> Result<(), Error> {
        let bytes = serde_json::to_vec(value).map_err(|error| Error::Other {
            reason: format!("the value for `{key}` can't be JSON: {error}"),
        })?;
        self.set(key, &bytes)
    }
}
