//! The identity of a store: a random name that is created in it once, so that hosts which reach one store by different
//! addresses know that it is one. It is asked for before anything else is done with a store, so what the store must
//! be able to do is tried here too.

use std::sync::Arc;

use bytes::Bytes;
use hvm_types::StoreId;
use object_store::path::Path;

use super::config::{ATTEMPT, ATTEMPTS, SharedStore};
use super::names::Nonce;
use super::objects::{Created, ObjectError, Objects, Patience};
use super::surroundings::System;

/// Where the identity stands.
const IDENTITY: &str = "identity";

/// Why the identity of a store is not known.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The store does not answer, or refuses.
    #[error("reach {store}: {reason}")]
    Unavailable {
        /// Which store.
        store: String,
        /// What it said last.
        reason: String,
    },
    /// It puts objects over others although it was asked not to: two owners would overwrite each other.
    #[error(
        "use {store} for state: it has no conditional puts (`If-None-Match: *`), on which everything rests here; \
         use another one"
    )]
    NotConditional {
        /// Which store.
        store: String,
    },
    /// Something else stands where the identity should.
    #[error(
        "use {store} for state: `{IDENTITY}` in it is not what this program writes there; name an empty prefix"
    )]
    Foreign {
        /// Which store.
        store: String,
    },
    /// There is no thread or random number for it.
    #[error("ask {store} for its identity")]
    System {
        /// Which store.
        store: String,
        /// What the system said.
        source: std::io::Error,
    },
}

impl SharedStore {
    /// The identity of the store, which is drawn where it has none. Waits for the store: not to be called on an
    /// executor's thread.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub fn identity(&self) -> Result<StoreId, IdentityError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|source| IdentityError::System { store: self.to_string(), source })?;
        let patience = Patience { attempt: ATTEMPT, attempts: ATTEMPTS };
        let objects = Objects::new(Arc::clone(&self.objects), Arc::new(System), patience);
        runtime.block_on(self.ensure_identity(&objects))
    }

    async fn ensure_identity(&self, objects: &Objects) -> Result<StoreId, IdentityError> {
        let unavailable = |error: ObjectError| IdentityError::Unavailable {
            store: self.to_string(),
            reason: error.to_string(),
        };
        let Nonce(random) = objects.surroundings().nonce();
        let name = format!("{:032x}", u128::from_be_bytes(random));
        let check = Path::from(format!("checks/{name}"));
        for (content, is_first) in [("first", true), ("second", false)] {
            let created = objects.create(&check, &Bytes::from(content)).await.map_err(unavailable)?;
            if (created == Created::Yes) != is_first {
                return Err(IdentityError::NotConditional { store: self.to_string() });
            }
        }
        objects.delete(&[check]).await.map_err(unavailable)?;

        let drawn = Bytes::from(name);
        let found = match objects.create(&Path::from(IDENTITY), &drawn).await.map_err(unavailable)? {
            Created::Yes => drawn,
            Created::Exists(found) => found,
        };
        let text = std::str::from_utf8(&found).ok().filter(|text| text.len() == 32);
        let id = text.and_then(|text| text.parse().ok());
        id.ok_or_else(|| IdentityError::Foreign { store: self.to_string() })
    }
}
