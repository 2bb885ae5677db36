//! Signing keys and public keys: ECDSA on P-256 and Ed25519, in PKCS#8 and SPKI PEM as other tools read them.

use std::fmt;
use std::str::FromStr;

use ed25519_dalek::pkcs8::KeypairBytes;
use hvm_types::{Digest, ParseDigestError};
use p256::ecdsa::signature::{Signer, Verifier};
use p256::elliptic_curve::Generate;
use p256::pkcs8::{DecodePrivateKey, DecodePublicKey, EncodePrivateKey, EncodePublicKey, LineEnding};

/// Which signatures a key makes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum KeyAlgorithm {
    /// ECDSA on P-256 with SHA-256. The default: every verifier knows it.
    #[default]
    EcdsaP256,
    /// Ed25519.
    Ed25519,
}

impl fmt::Display for KeyAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EcdsaP256 => "ecdsa-p256",
            Self::Ed25519 => "ed25519",
        })
    }
}

impl FromStr for KeyAlgorithm {
    type Err = KeyError;

    fn from_str(name: &str) -> Result<Self, KeyError> {
        [Self::EcdsaP256, Self::Ed25519]
            .into_iter()
            .find(|algorithm| algorithm.to_string() == name)
            .ok_or_else(|| KeyError::UnknownAlgorithm { name: name.to_owned() })
    }
}

/// Why a key can't be used. Nothing of a private key stands in it.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The text is no key of a kind that we know.
    #[error("this is not {expected} in PEM form")]
    NotAKey {
        /// What was wanted.
        expected: &'static str,
    },
    /// No such algorithm.
    #[error("`{name}` is no key algorithm: there are ecdsa-p256 and ed25519")]
    UnknownAlgorithm {
        /// What was given.
        name: String,
    },
    /// The operating system gives no random numbers.
    #[error("cannot draw random numbers for a new key: {reason}")]
    NoRandomness {
        /// What it said.
        reason: String,
    },
}

/// The name of a key: the SHA-256 digest of its SPKI DER encoding, as 64 hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(Digest);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_hex())
    }
}

impl FromStr for KeyId {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        format!("sha256:{text}").parse().map(Self)
    }
}

/// A key that checks signatures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    key: Verifying,
    id: KeyId,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Verifying {
    EcdsaP256(p256::ecdsa::VerifyingKey),
    Ed25519(ed25519_dalek::VerifyingKey),
}

/// Why encoding a key can't fail.
const ENCODES: &str = "a valid key has an encoding";

impl PublicKey {
    fn new(key: Verifying) -> Self {
        let der = match &key {
            Verifying::EcdsaP256(key) => key.to_public_key_der(),
            Verifying::Ed25519(key) => key.to_public_key_der(),
        };
        let id = KeyId(Digest::of(der.expect(ENCODES).as_bytes()));
        Self { key, id }
    }

    /// Reads `-----BEGIN PUBLIC KEY-----` (SPKI, RFC 7468).
    ///
    /// # Errors
    /// Where it is something else, or a key of another kind than P-256 and Ed25519.
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        let pem = pem.trim();
        let ecdsa = p256::ecdsa::VerifyingKey::from_public_key_pem(pem).map(Verifying::EcdsaP256).ok();
        let ed25519 = || ed25519_dalek::VerifyingKey::from_public_key_pem(pem).map(Verifying::Ed25519).ok();
        let expected = "an ECDSA P-256 or Ed25519 public key";
        ecdsa.or_else(ed25519).map(Self::new).ok_or(KeyError::NotAKey { expected })
    }

    /// The key as SPKI PEM.
    #[must_use]
    pub fn to_pem(&self) -> String {
        match &self.key {
            Verifying::EcdsaP256(key) => key.to_public_key_pem(LineEnding::LF),
            Verifying::Ed25519(key) => key.to_public_key_pem(LineEnding::LF),
        }
        .expect(ENCODES)
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// Its kind.
    #[must_use]
    pub fn algorithm(&self) -> KeyAlgorithm {
        match self.key {
            Verifying::EcdsaP256(_) => KeyAlgorithm::EcdsaP256,
            Verifying::Ed25519(_) => KeyAlgorithm::Ed25519,
        }
    }

    /// Whether this key made the signature: DER for ECDSA, 64 bytes for Ed25519.
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.key {
            Verifying::EcdsaP256(key) => p256::ecdsa::Signature::from_der(signature)
                .is_ok_and(|signature| key.verify(message, &signature).is_ok()),
            Verifying::Ed25519(key) => ed25519_dalek::Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify_strict(message, &signature).is_ok()),
        }
    }
}

/// A key that signs. Its `Debug` shows only the public half.
#[derive(Clone)]
pub struct SigningKey {
    key: Secret,
    public: PublicKey,
}

#[derive(Clone)]
enum Secret {
    EcdsaP256(p256::ecdsa::SigningKey),
    Ed25519(ed25519_dalek::SigningKey),
}

impl SigningKey {
    fn new(key: Secret) -> Self {
        let public = PublicKey::new(match &key {
            Secret::EcdsaP256(key) => Verifying::EcdsaP256(*key.verifying_key()),
            Secret::Ed25519(key) => Verifying::Ed25519(key.verifying_key()),
        });
        Self { key, public }
    }

    /// A new key, from the operating system's random numbers.
    ///
    /// # Errors
    /// Where it gives none.
    pub fn generate(algorithm: KeyAlgorithm) -> Result<Self, KeyError> {
        let failed = |reason: String| KeyError::NoRandomness { reason };
        Ok(Self::new(match algorithm {
            KeyAlgorithm::EcdsaP256 => Secret::EcdsaP256(
                p256::ecdsa::SigningKey::try_generate().map_err(|error| failed(error.to_string()))?,
            ),
            KeyAlgorithm::Ed25519 => {
                let mut seed = [0; 32];
                getrandom::fill(&mut seed).map_err(|error| failed(error.to_string()))?;
                Secret::Ed25519(ed25519_dalek::SigningKey::from_bytes(&seed))
            }
        }))
    }

    /// Reads `-----BEGIN PRIVATE KEY-----` (PKCS#8, RFC 5958, not encrypted).
    ///
    /// # Errors
    /// Where it is something else, or a key of another kind than P-256 and Ed25519.
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        let pem = pem.trim();
        let ecdsa = p256::ecdsa::SigningKey::from_pkcs8_pem(pem).map(Secret::EcdsaP256).ok();
        let ed25519 = || ed25519_dalek::SigningKey::from_pkcs8_pem(pem).map(Secret::Ed25519).ok();
        let expected = "an unencrypted ECDSA P-256 or Ed25519 private key (PKCS#8)";
        ecdsa.or_else(ed25519).map(Self::new).ok_or(KeyError::NotAKey { expected })
    }

    /// The key as PKCS#8 PEM. It is a secret.
    #[must_use]
    pub fn to_pem(&self) -> String {
        let pem = match &self.key {
            Secret::EcdsaP256(key) => key.to_pkcs8_pem(LineEnding::LF),
            // Without the public key beside it: OpenSSL reads only this older form.
            Secret::Ed25519(key) => {
                KeypairBytes { secret_key: key.to_bytes(), public_key: None }.to_pkcs8_pem(LineEnding::LF)
            }
        };
        pem.expect(ENCODES).to_string()
    }

    /// The key that checks what this one signs.
    #[must_use]
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Signs. The same message always gets the same signature (RFC 6979, RFC 8032).
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        match &self.key {
            Secret::EcdsaP256(key) => {
                let signature: p256::ecdsa::Signature = key.sign(message);
                signature.to_der().as_bytes().to_vec()
            }
            Secret::Ed25519(key) => key.sign(message).to_bytes().to_vec(),
        }
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("public", &self.public.id()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: [KeyAlgorithm; 2] = [KeyAlgorithm::EcdsaP256, KeyAlgorithm::Ed25519];

    #[test]
    fn a_key_reads_back_from_its_pem_and_still_fits_its_public_half() {
        for algorithm in BOTH {
            let key = SigningKey::generate(algorithm).expect("the system has randomness");
            let read = SigningKey::from_pem(&key.to_pem()).expect("our own PEM");
            let public = PublicKey::from_pem(&key.public().to_pem()).expect("our own PEM");
            assert_eq!(public.algorithm(), algorithm);
            assert_eq!(public.id(), read.public().id());
            assert!(public.verifies(b"message", &read.sign(b"message")));
            assert!(!public.verifies(b"massage", &read.sign(b"message")));
            assert_eq!(key.sign(b"message"), read.sign(b"message"), "signing is deterministic");
        }
    }

    #[test]
    fn no_key_checks_another_ones_signature() {
        let keys = BOTH.map(|algorithm| SigningKey::generate(algorithm).expect("the system has randomness"));
        for (a, b) in [(0, 1), (1, 0)] {
            assert!(!keys[a].public().verifies(b"message", &keys[b].sign(b"message")));
        }
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let key = SigningKey::generate(KeyAlgorithm::EcdsaP256).expect("the system has randomness");
        for text in ["", "hello", &key.to_pem()[..60], &key.to_pem()] {
            assert!(PublicKey::from_pem(text).is_err(), "taken as a public key");
        }
        for text in ["", "hello", &key.public().to_pem()] {
            assert!(SigningKey::from_pem(text).is_err(), "taken as a private key");
        }
    }

    #[test]
    fn debug_output_holds_no_secret() {
        let key = SigningKey::generate(KeyAlgorithm::Ed25519).expect("the system has randomness");
        let secret = key.to_pem();
        let secret = secret.lines().nth(1).expect("the PEM's body");
        assert!(!format!("{key:?}").contains(&secret[secret.len() - 20..]));
    }
}
