//! From an image's digest to a component that can be run: fetch what is not here, verify, check what it asks for,
//! compile.
//! The order is the point: nothing is read deeper, and nothing compiled, before it was verified.

use std::sync::Arc;

use hvm_appimage::{
    ComponentError, GrantError, Image, ReadError, VerifyError, check_component, check_grants,
};
use hvm_runtime::{CompileError, Hvm};
use hvm_types::{Capability, Digest, PackageName, StateSchema};

use super::observed::{ModuleKey, ModuleStatus};
use super::registry::{PreparedModule, Registry};
use crate::images::{FetchError, ImageFetch, ImageStore, Trust, TrustError};

/// Prepares components.
#[derive(Clone)]
pub(crate) struct ModuleSet {
    pub(crate) hvm: Hvm,
    pub(crate) store: ImageStore,
    pub(crate) fetch: ImageFetch,
    pub(crate) trust: Trust,
    pub(crate) registry: Arc<Registry>,
}

/// A component that may run, and what its image says of it.
struct Verified {
    component: Vec<u8>,
    requested: Vec<Capability>,
    schema: StateSchema,
}

/// A component that must not or can't be run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PrepareError {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    Trust(#[from] TrustError),
    #[error("image {} has no package {package}; it has {there}", image.short())]
    NoPackage { image: Digest, package: PackageName, there: String },
    #[error(transparent)]
    Grant(#[from] GrantError),
    #[error("the component of package {package} can't be read")]
    Unreadable { package: PackageName, source: ReadError },
    #[error("the component of package {package} is refused")]
    Component { package: PackageName, source: ComponentError },
    #[error(transparent)]
    Compile(#[from] CompileError),
}

impl ModuleSet {
    /// Prepares one component; the registry shows how far it is.
    pub(crate) async fn prepare(&self, key: &ModuleKey) -> Result<PreparedModule, PrepareError> {
        self.prepare_with(key, |status| self.registry.progress(key, status)).await
    }

    /// The same for one that the document does not ask for: the registry does not know of it.
    pub(crate) async fn prepare_aside(&self, key: &ModuleKey) -> Result<PreparedModule, PrepareError> {
        self.prepare_with(key, |_| {}).await
    }

    async fn prepare_with(
        &self,
        key: &ModuleKey,
        progress: impl Fn(ModuleStatus),
    ) -> Result<PreparedModule, PrepareError> {
        self.trust.policy()?; // without a policy there is nothing to fetch for
        progress(ModuleStatus::Verifying);
        let Verified { component, requested, schema } = match self.verified(key).await {
            // Part of it is missing or damaged, or another signature may have been added: what the scheduler has is
            // asked for only now, so that what this host has starts without it.
            Err(PrepareError::Trust(_) | PrepareError::Unreadable { .. }) => {
                progress(ModuleStatus::Pulling);
                self.fetch.ensure(key.image).await?;
                progress(ModuleStatus::Verifying);
                self.verified(key).await?
            }
            verified => verified?,
        };
        progress(ModuleStatus::Compiling);
        let module = self.hvm.compile_for(key.metering, component.into()).await?;
        Ok(PreparedModule { module, requested, schema })
    }

    /// The component as this host has it, if it may run.
    async fn verified(&self, key: &ModuleKey) -> Result<Verified, PrepareError> {
        let (this, key) = (self.clone(), key.clone());
        let verified = tokio::task::spawn_blocking(move || this.verified_component(&key)).await;
        verified.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
    }

    fn verified_component(&self, key: &ModuleKey) -> Result<Verified, PrepareError> {
        let image = self.trust.verify(&self.store, key.image).inspect_err(|error| match error {
            TrustError::Unreadable { source, .. } => self.discard_damaged(source),
            TrustError::NotTrusted { source, .. } => {
                if let VerifyError::Read(source) = &**source {
                    self.discard_damaged(source);
                }
            }
            _ => {}
        })?;
        let package = &key.package;
        let requested = requested(&image, key)?;
        check_grants(package, &requested, &key.granted)?;
        let component = image.component(package).map_err(|source| {
            self.discard_damaged(&source);
            PrepareError::Unreadable { package: package.clone(), source }
        })?;
        check_component(&component, &requested)
            .map_err(|source| PrepareError::Component { package: package.clone(), source })?;
        Ok(Verified { component, requested, schema: image.config().schema() })
    }

    /// A blob that the disk damaged is fetched again by the next try.
    fn discard_damaged(&self, error: &ReadError) {
        if let ReadError::DigestMismatch { expected: digest, .. } | ReadError::SizeMismatch { digest, .. } =
            error
            && let Err(error) = self.store.discard(*digest)
        {
            tracing::warn!(%digest, %error, "a damaged blob could not be removed");
        }
    }
}

fn requested(image: &Image, key: &ModuleKey) -> Result<Vec<Capability>, PrepareError> {
    let packages = &image.config().packages;
    match packages.get(&key.package) {
        Some(package) => Ok(package.capabilities.clone()),
        None => Err(PrepareError::NoPackage {
            image: key.image,
            package: key.package.clone(),
            there: packages.keys().map(PackageName::as_str).collect::<Vec<_>>().join(", "),
        }),
    }
}
