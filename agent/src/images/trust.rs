//! The host's trust policy and what it decides about an image. Fails closed: no policy, no image.

use std::path::PathBuf;

use hvm_appimage::{Image, PolicyError, ReadError, TrustPolicy, UnverifiedImage, VerifyError};
use hvm_types::Digest;

use super::store::{BlobError, ImageStore};

/// Where the policy stands. It is read again for every image, so that a revoked key is not trusted any more
/// by the next one.
#[derive(Debug, Clone)]
pub(crate) struct Trust {
    policy: Option<PathBuf>,
}

/// An image that must not run here.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TrustError {
    #[error(
        "this host has no trust policy, so it runs no image: start its agent with a policy or a public key"
    )]
    NoPolicy,
    #[error(transparent)]
    Policy(#[from] PolicyError),
    #[error("image {} can't be read", manifest.short())]
    Unreadable { manifest: Digest, source: ReadError },
    #[error("image {} is not trusted", manifest.short())]
    NotTrusted { manifest: Digest, source: Box<VerifyError> },
    #[error("the index that arrived for image {wanted} describes image {found}")]
    OtherImage { wanted: Digest, found: Digest },
    #[error(transparent)]
    Store(#[from] BlobError),
    #[error("image {} is not on this host", manifest.short())]
    Missing { manifest: Digest },
}

impl Trust {
    pub(crate) fn new(policy: Option<PathBuf>) -> Self {
        Self { policy }
    }

    /// The policy as it stands now.
    pub(crate) fn policy(&self) -> Result<TrustPolicy, TrustError> {
        let path = self.policy.as_ref().ok_or(TrustError::NoPolicy)?;
        Ok(TrustPolicy::load(path)?)
    }

    /// The image `manifest` from the store, if it is complete, undamaged and trusted.
    pub(crate) fn verify(&self, store: &ImageStore, manifest: Digest) -> Result<Image, TrustError> {
        let policy = self.policy()?;
        let index = store.index(manifest)?.ok_or(TrustError::Missing { manifest })?;
        let image = UnverifiedImage::open(store.source(index))
            .map_err(|source| TrustError::Unreadable { manifest, source })?;
        if image.manifest_digest() != manifest {
            return Err(TrustError::OtherImage { wanted: manifest, found: image.manifest_digest() });
        }
        image.verify(&policy).map_err(|source| TrustError::NotTrusted { manifest, source: Box::new(source) })
    }
}
