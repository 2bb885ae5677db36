//! One signature: a Sigstore bundle v0.3 made with a plain key. It holds a DSSE envelope over an in-toto
//! statement, whose subject is the image manifest's digest.
//!
//! Formats: `sigstore_bundle.proto` of sigstore/protobuf-specs in its JSON form, DSSE v1.0, in-toto Statement v1.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hvm_types::Digest;
use serde::{Deserialize, Serialize};

use crate::json;
use crate::key::{KeyId, PublicKey, SigningKey};
use crate::media_type::BUNDLE_TYPE;
use crate::read_error::ReadError;

/// `predicateType` of our statements: "the signer releases this AppImage".
pub const PREDICATE_TYPE: &str = "urn:hvm:appimage:release:v1";
const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct BundleDocument {
    media_type: String,
    verification_material: VerificationMaterial,
    dsse_envelope: Envelope,
}

/// Bundles made with a certificate have other fields here; we leave those to other verifiers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct VerificationMaterial {
    public_key: Option<KeyHint>,
}

#[derive(Debug, Serialize, Deserialize)]
struct KeyHint {
    hint: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    payload: String,
    payload_type: String,
    signatures: Vec<EnvelopeSignature>,
}

#[derive(Debug, Serialize, Deserialize)]
struct EnvelopeSignature {
    sig: String,
    #[serde(default)]
    keyid: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Statement {
    #[serde(rename = "_type")]
    statement_type: String,
    subject: Vec<Subject>,
    predicate_type: String,
    #[serde(default)]
    predicate: serde_json::Value,
}

#[derive(Debug, Serialize, Deserialize)]
struct Subject {
    #[serde(default)]
    name: String,
    digest: BTreeMap<String, String>,
}

/// What a DSSE signature is made over (DSSE v1.0, "Signature Definition").
fn pre_authentication_encoding(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len());
    [head.as_bytes(), payload].concat()
}

/// Makes the bundle with which `key` releases the image. `name` is for people who read it.
pub(crate) fn create_bundle(key: &SigningKey, manifest: Digest, name: &str) -> Vec<u8> {
    let payload = json::encode(&Statement {
        statement_type: STATEMENT_TYPE.to_owned(),
        subject: vec![Subject {
            name: name.to_owned(),
            digest: BTreeMap::from([("sha256".to_owned(), manifest.to_hex())]),
        }],
        predicate_type: PREDICATE_TYPE.to_owned(),
        predicate: serde_json::json!({}),
    });
    let signature = key.sign(&pre_authentication_encoding(PAYLOAD_TYPE, &payload));
    let id = key.public().id().to_string();
    json::encode(&BundleDocument {
        media_type: BUNDLE_TYPE.to_owned(),
        verification_material: VerificationMaterial { public_key: Some(KeyHint { hint: id.clone() }) },
        dsse_envelope: Envelope {
            payload: STANDARD.encode(payload),
            payload_type: PAYLOAD_TYPE.to_owned(),
            signatures: vec![EnvelopeSignature { sig: STANDARD.encode(signature), keyid: id }],
        },
    })
}

/// A bundle that was parsed; nothing in it has been verified.
#[derive(Debug)]
pub(crate) struct Bundle {
    claimed_key: Option<KeyId>,
    payload: Vec<u8>,
    payload_type: String,
    signature: Vec<u8>,
}

/// What a bundle turned out to say, after its signature was found to be right.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Statements {
    /// It releases this image.
    ReleasesImage,
    /// It releases something else.
    OtherSubject {
        /// What, where it says so in a way that we understand.
        subject: Option<String>,
    },
    /// It is a statement of another kind, such as a report of a scan.
    OtherPurpose,
}

impl Bundle {
    /// Parses a bundle whose size was checked.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, ReadError> {
        let what = "a signature";
        let invalid = |reason: &str| ReadError::Document { what: what.to_owned(), reason: reason.to_owned() };
        let document: BundleDocument = json::parse(what, bytes)?;
        if document.media_type != BUNDLE_TYPE {
            return Err(invalid("it is not a Sigstore bundle of version 0.3"));
        }
        let envelope = document.dsse_envelope;
        let [signature] = envelope.signatures.as_slice() else {
            return Err(invalid("its envelope does not hold exactly one signature"));
        };
        let decode = |text: &str| STANDARD.decode(text).map_err(|_| invalid("it holds broken base64"));
        let claimed_key = document.verification_material.public_key;
        Ok(Self {
            claimed_key: claimed_key.and_then(|key| key.hint.parse().ok()),
            payload: decode(&envelope.payload)?,
            signature: decode(&signature.sig)?,
            payload_type: envelope.payload_type,
        })
    }

    /// The key that it says it was made with; `None` where it names none in our way.
    pub(crate) fn claimed_key(&self) -> Option<KeyId> {
        self.claimed_key
    }

    /// Checks the signature and reads the statement; `None` where this key did not make it. The statement is
    /// not parsed before.
    pub(crate) fn check(&self, key: &PublicKey, manifest: Digest) -> Result<Option<Statements>, ReadError> {
        let message = pre_authentication_encoding(&self.payload_type, &self.payload);
        if !key.verifies(&message, &self.signature) {
            return Ok(None);
        }
        if self.payload_type != PAYLOAD_TYPE {
            return Ok(Some(Statements::OtherPurpose));
        }
        let statement: Statement = json::parse("a signed statement", &self.payload)?;
        if statement.statement_type != STATEMENT_TYPE || statement.predicate_type != PREDICATE_TYPE {
            return Ok(Some(Statements::OtherPurpose));
        }
        let manifest = manifest.to_hex();
        let subjects: Vec<_> = statement.subject.iter().map(|s| s.digest.get("sha256")).collect();
        Ok(Some(if subjects == [Some(&manifest)] {
            Statements::ReleasesImage
        } else {
            Statements::OtherSubject { subject: subjects.first().copied().flatten().cloned() }
        }))
    }
}
