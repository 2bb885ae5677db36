//! Signatures: an image is verified only if a trusted key signed a statement that names it, and nothing else.
//!
//! The first byte chooses what the rest is: the bundle itself, or a statement that the trusted key signs, so
//! that what stands behind a right signature is reached.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hvm_appimage::{PREDICATE_TYPE, SigningKey, TrustPolicy, UnverifiedImage};
use hvm_types::Digest;
use serde_json::{Value, json};

use crate::image_documents::{Documents, filled};

const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
/// RFC 8410, 10.3: everybody's key, so that the same input always does the same.
const KEY: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n";
const CONFIG: &str = r#"{"app":"a","version":"1.0.0","state_schema":1,"packages":{"p":{"component":"@0"}}}"#;
const MANIFEST: &str = r##"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","artifactType":"application/vnd.hvm.appimage.v1","config":{"mediaType":"application/vnd.hvm.appimage.config.v1+json","digest":"@1","size":#1},"layers":[{"mediaType":"application/wasm","digest":"@0","size":#0}]}"##;
const SIGNATURE: &str = r##"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","artifactType":"application/vnd.dev.sigstore.bundle.v0.3+json","config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":"@3","size":2},"layers":[{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","digest":"@4","size":#4}],"subject":{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"@2","size":#2}}"##;
const INDEX: &str = r##"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"@2","size":#2,"artifactType":"application/vnd.hvm.appimage.v1"},{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"@5","size":#5,"artifactType":"application/vnd.dev.sigstore.bundle.v0.3+json"}]}"##;

static SIGNER: LazyLock<SigningKey> =
    LazyLock::new(|| SigningKey::from_pem(KEY).expect("the key of the RFC is one"));

pub(crate) fn check(input: &[u8]) {
    let Some((kind, rest)) = input.split_first() else { return };
    let manifest = Digest::of(&image()[2]);
    // The input may name the image too.
    let rest = filled(rest, &image());
    match kind % 3 {
        0 => drop(is_verified(rest)),
        1 => {
            let verified = is_verified(bundle(&rest, PAYLOAD_TYPE, &rest));
            assert!(
                !verified || releases(&rest, manifest),
                "a statement of something else released the image"
            );
        }
        _ => {
            let (signed, shown) = rest.split_at(rest.len() / 2);
            let verified = is_verified(bundle(signed, PAYLOAD_TYPE, shown));
            assert!(!verified || signed == shown, "a changed statement released the image");
        }
    }
}

/// Component, config, manifest, and the empty config of the signature.
fn image() -> Vec<Vec<u8>> {
    let mut parts = vec![b"component".to_vec()];
    for text in [CONFIG, MANIFEST, "{}"] {
        parts.push(filled(text.as_bytes(), &parts));
    }
    parts
}

fn is_verified(bundle: Vec<u8>) -> bool {
    let mut parts = image();
    parts.push(bundle);
    for text in [SIGNATURE, INDEX] {
        parts.push(filled(text.as_bytes(), &parts));
    }
    let image = UnverifiedImage::open(Documents::of(parts)).expect("all but the bundle is right");
    image.verify(&TrustPolicy::of_key(SIGNER.public().clone())).is_ok()
}

/// A bundle with a signature over `signed` that shows `shown` (DSSE v1.0, "Signature Definition").
fn bundle(signed: &[u8], payload_type: &str, shown: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), signed.len());
    let signature = SIGNER.sign(&[head.as_bytes(), signed].concat());
    let key = SIGNER.public().id().to_string();
    let bundle = json!({
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": { "publicKey": { "hint": key } },
        "dsseEnvelope": {
            "payload": STANDARD.encode(shown),
            "payloadType": payload_type,
            "signatures": [{ "sig": STANDARD.encode(signature), "keyid": key }],
        },
    });
    bundle.to_string().into_bytes()
}

/// Whether a statement says that it releases this image, and nothing else.
fn releases(statement: &[u8], manifest: Digest) -> bool {
    let Ok(statement) = serde_json::from_slice::<Value>(statement) else { return false };
    let subjects = statement["subject"].as_array();
    statement["_type"] == "https://in-toto.io/Statement/v1"
        && statement["predicateType"] == PREDICATE_TYPE
        && subjects.is_some_and(|subjects| {
            subjects.len() == 1 && subjects[0]["digest"]["sha256"] == manifest.to_hex()
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_right_statement_releases_the_image_and_one_of_another_does_not() {
        let statement = include_bytes!("../../../fuzz/corpus/signature/statement");
        let right = filled(&statement[1..], &image());
        assert!(releases(&right, Digest::of(&image()[2])));
        assert!(is_verified(bundle(&right, PAYLOAD_TYPE, &right)));
        let other = filled(&statement[1..], &image()[..1]);
        assert!(!is_verified(bundle(&other, PAYLOAD_TYPE, &other)));
        assert!(!is_verified(bundle(&right, "text/plain", &right)));
    }
}
