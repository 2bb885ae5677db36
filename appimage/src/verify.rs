//! From signatures to a decision: which trusted keys released this image, and whether that is enough.

use std::collections::BTreeSet;

use hvm_types::{AppName, Digest, ImageConfig};

use crate::blob::BlobSource;
use crate::bundle::{Bundle, Statements};
use crate::key::KeyId;
use crate::layout::Layout;
use crate::limit::MAX_BUNDLE_BYTES;
use crate::read_error::ReadError;
use crate::trust::TrustPolicy;

/// Why an image must not run.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// It can't be read, or a blob is not what the signed manifest says.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Nobody signed it.
    #[error("the image is not signed; sign it with `appimage-tool sign`")]
    Unsigned,
    /// Only keys that the policy does not name signed it.
    #[error("the image is signed by {}, which the trust policy does not name", list(.keys))]
    Untrusted {
        /// The keys that the signatures name. Whether they made them is not known.
        keys: Vec<KeyId>,
    },
    /// A signature says that it was made with a trusted key, and was not.
    #[error("a signature of the image is wrong: key {key} did not make it")]
    WrongSignature {
        /// The key.
        key: KeyId,
    },
    /// A trusted key signed something else.
    #[error("key {key} signed {subject}, not this image, {manifest}; the signature was taken from elsewhere")]
    SubjectMismatch {
        /// The key.
        key: KeyId,
        /// What it signed.
        subject: String,
        /// This image.
        manifest: Digest,
    },
    /// A key that was revoked signed it, and too few others did.
    #[error("the image is signed by key {key}, which the trust policy revokes")]
    Revoked {
        /// The key.
        key: KeyId,
    },
    /// A trusted key signed it that may not sign this app.
    #[error("the image is signed by key {key}, which the trust policy does not let sign the app {app}")]
    KeyNotForApp {
        /// The key.
        key: KeyId,
        /// The app.
        app: AppName,
    },
    /// Too few of the trusted keys signed it.
    #[error("the image has {found} trusted signatures, and the trust policy asks for {needed}")]
    TooFewSignatures {
        /// How many keys that may sign this app did.
        found: usize,
        /// How many must.
        needed: usize,
    },
    /// It is older than the policy accepts.
    #[error("version {version} of {app} is not accepted: the trust policy wants {lowest} or newer")]
    BelowLowest {
        /// The app.
        app: AppName,
        /// The image's version.
        version: semver::Version,
        /// The lowest accepted one.
        lowest: semver::Version,
    },
}

fn list(keys: &[KeyId]) -> String {
    let keys: Vec<_> = keys.iter().map(ToString::to_string).collect();
    if keys.is_empty() { "something without a key id".to_owned() } else { format!("key {}", keys.join(", ")) }
}

/// Keys that released an image, by what the policy says of them. Nothing but signatures was read.
#[derive(Debug, Default)]
pub(crate) struct Signers {
    trusted: BTreeSet<KeyId>,
    revoked: BTreeSet<KeyId>,
    unknown: BTreeSet<KeyId>,
}

impl Signers {
    /// Checks every signature of the image. One that claims a trusted key and is wrong condemns the image,
    /// whatever the others say: somebody tampered with it.
    pub(crate) fn observe(
        layout: &Layout,
        source: &dyn BlobSource,
        policy: &TrustPolicy,
    ) -> Result<Self, VerifyError> {
        if layout.signatures.is_empty() {
            return Err(VerifyError::Unsigned);
        }
        let mut signers = Self::default();
        for signature in &layout.signatures {
            let bundle = Bundle::parse(&signature.bundle.read(source, "a signature", MAX_BUNDLE_BYTES)?)?;
            signers.add(&bundle, layout.manifest.digest, policy)?;
        }
        if signers.trusted.is_empty() {
            return Err(match signers.revoked.first() {
                Some(key) => VerifyError::Revoked { key: *key },
                None => VerifyError::Untrusted { keys: signers.unknown.into_iter().collect() },
            });
        }
        Ok(signers)
    }

    fn add(&mut self, bundle: &Bundle, manifest: Digest, policy: &TrustPolicy) -> Result<(), VerifyError> {
        let Some(id) = bundle.claimed_key() else { return Ok(()) };
        if policy.revokes(id) {
            self.revoked.insert(id);
            return Ok(());
        }
        let Some(key) = policy.key(id) else {
            self.unknown.insert(id);
            return Ok(());
        };
        match bundle.check(key, manifest)? {
            None => return Err(VerifyError::WrongSignature { key: id }),
            Some(Statements::ReleasesImage) => {
                self.trusted.insert(id);
            }
            Some(Statements::OtherSubject { subject }) => {
                let subject = subject.unwrap_or_else(|| "something else".to_owned());
                return Err(VerifyError::SubjectMismatch { key: id, subject, manifest });
            }
            Some(Statements::OtherPurpose) => {}
        }
        Ok(())
    }

    /// Decides, now that the signed config may be read; returns the keys that count.
    pub(crate) fn admit(self, config: &ImageConfig, policy: &TrustPolicy) -> Result<Vec<KeyId>, VerifyError> {
        let (allowed, others): (Vec<_>, Vec<_>) =
            self.trusted.into_iter().partition(|key| policy.may_sign(*key, &config.app));
        let needed = policy.threshold();
        if allowed.len() < needed {
            if let Some(key) = others.first() {
                return Err(VerifyError::KeyNotForApp { key: *key, app: config.app.clone() });
            }
            if let Some(key) = self.revoked.first() {
                return Err(VerifyError::Revoked { key: *key });
            }
            return Err(VerifyError::TooFewSignatures { found: allowed.len(), needed });
        }
        if let Some(lowest) = policy.lowest(&config.app)
            && config.version.cmp_precedence(lowest).is_lt()
        {
            return Err(VerifyError::BelowLowest {
                app: config.app.clone(),
                version: config.version.clone(),
                lowest: lowest.clone(),
            });
        }
        Ok(allowed)
    }
}
