//! Signatures: who may make them, and every way to cheat with them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hvm_appimage::{KeyAlgorithm, MAX_SIGNATURES, SignError, UnverifiedImage, VerifyError, sign_file};
use serde_json::json;
use tempfile::TempDir;

use crate::images::{ImageFile, builder, check, key, p256, signed, trust, unsigned, verify};
use crate::raw_tar::Layout;

/// The same app, one version on: another image.
fn other_image() -> Vec<u8> {
    let directory = TempDir::new().expect("a temporary directory");
    builder("hello", "1.2.4", directory.path()).write_bytes().expect("an image")
}

#[test]
fn both_algorithms_sign_and_verify() {
    for algorithm in [KeyAlgorithm::EcdsaP256, KeyAlgorithm::Ed25519] {
        let key = key(algorithm);
        verify(&signed(&unsigned(), &[&key]), &trust(&key)).expect("the right key");
    }
}

#[test]
fn an_unsigned_image_is_refused() {
    let error = verify(&unsigned(), &trust(&p256())).expect_err("it is not signed");
    assert!(matches!(error, VerifyError::Unsigned), "{error}");
}

#[test]
fn an_image_signed_by_somebody_else_is_refused_by_that_key() {
    let (mine, other) = (p256(), p256());
    let error = verify(&signed(&unsigned(), &[&other]), &trust(&mine)).expect_err("the wrong key");
    assert!(matches!(&error, VerifyError::Untrusted { keys } if *keys == [other.public().id()]));
    assert!(error.to_string().contains(&other.public().id().to_string()), "{error}");
}

#[test]
fn a_foreign_signature_beside_a_trusted_one_does_no_harm() {
    let (mine, other) = (p256(), key(KeyAlgorithm::Ed25519));
    let image = verify(&signed(&unsigned(), &[&other, &mine]), &trust(&mine)).expect("mine is there");
    assert_eq!(image.signers(), [mine.public().id()]);
}

#[test]
fn a_signature_that_another_key_made_is_wrong_whatever_it_claims() {
    let (mine, other) = (p256(), p256());
    let mut layout = Layout::of(&signed(&unsigned(), &[&other]));
    layout.change_bundle(0, |bundle| {
        bundle["verificationMaterial"]["publicKey"]["hint"] = mine.public().id().to_string().into();
    });
    let error = verify(&layout.write(), &trust(&mine)).expect_err("the wrong key made it");
    assert!(matches!(&error, VerifyError::WrongSignature { key } if *key == mine.public().id()), "{error}");
}

#[test]
fn a_changed_statement_or_signature_is_wrong() {
    let key = p256();
    let image = signed(&unsigned(), &[&key]);
    for field in ["payload", "sig"] {
        let mut layout = Layout::of(&image);
        layout.change_bundle(0, |bundle| {
            let envelope = &mut bundle["dsseEnvelope"];
            let text =
                if field == "sig" { &mut envelope["signatures"][0]["sig"] } else { &mut envelope[field] };
            let mut bytes = STANDARD.decode(text.as_str().expect("base64")).expect("base64");
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            *text = STANDARD.encode(bytes).into();
        });
        let error = verify(&layout.write(), &trust(&key)).expect_err("it was changed");
        assert!(matches!(error, VerifyError::WrongSignature { .. }), "{field}: {error}");
    }
    let mut layout = Layout::of(&image);
    layout.change_bundle(0, |bundle| bundle["dsseEnvelope"]["payloadType"] = json!("text/plain"));
    let error = verify(&layout.write(), &trust(&key)).expect_err("the type is signed too");
    assert!(matches!(error, VerifyError::WrongSignature { .. }), "{error}");
}

#[test]
fn a_signature_taken_from_another_image_names_its_subject() {
    let key = p256();
    let other = check(&other_image()).expect("a right image").manifest_digest();
    let donor = Layout::of(&signed(&other_image(), &[&key])).bundle(0);
    let mut layout = Layout::of(&signed(&unsigned(), &[&key]));
    layout.change_bundle(0, |bundle| *bundle = donor);
    let error = verify(&layout.write(), &trust(&key)).expect_err("another image's signature");
    let VerifyError::SubjectMismatch { subject, .. } = &error else { panic!("{error}") };
    assert_eq!(*subject, other.to_hex());
}

#[test]
fn a_manifest_that_attaches_a_signature_elsewhere_is_refused() {
    let key = p256();
    let mut layout = Layout::of(&signed(&unsigned(), &[&key]));
    let donor = Layout::of(&signed(&other_image(), &[&key]));
    let signature = donor.index["manifests"][1].clone();
    layout.index["manifests"][1] = signature;
    layout.blobs.extend(donor.blobs);
    let error = verify(&layout.write(), &trust(&key)).expect_err("its subject is another image");
    assert!(error.to_string().contains("its subject is not this image"), "{error}");
}

#[test]
fn broken_bundles_are_refused_for_what_they_are() {
    let key = p256();
    let image = signed(&unsigned(), &[&key]);
    type Change = fn(&mut serde_json::Value);
    let cases: [(Change, &str); 5] = [
        (|b| b["mediaType"] = json!("application/x"), "not a Sigstore bundle"),
        (|b| b["dsseEnvelope"]["signatures"] = json!([]), "exactly one signature"),
        (|b| b["dsseEnvelope"]["payload"] = json!("%"), "broken base64"),
        (|b| b["dsseEnvelope"] = json!(null), "is not valid"),
        (|b| b["verificationMaterial"] = json!({ "certificate": {} }), "something without a key id"),
    ];
    for (change, expected) in cases {
        let mut layout = Layout::of(&image);
        layout.change_bundle(0, change);
        let error = verify(&layout.write(), &trust(&key)).expect_err("a broken bundle");
        assert!(error.to_string().contains(expected), "{expected}: {error}");
    }
}

#[test]
fn every_key_adds_its_signature_and_a_second_time_changes_nothing() {
    let (first, second) = (p256(), key(KeyAlgorithm::Ed25519));
    let file = ImageFile::new(&unsigned());
    let digest = UnverifiedImage::open_file(&file.path).expect("a right image").manifest_digest();
    let outcome = sign_file(&file.path, &first).expect("a right image");
    assert_eq!((outcome.manifest, outcome.already_signed, outcome.signatures), (digest, false, 1));
    let outcome = sign_file(&file.path, &second).expect("a right image");
    assert_eq!((outcome.manifest, outcome.already_signed, outcome.signatures), (digest, false, 2));
    let both = file.bytes();
    for key in [&first, &second] {
        let outcome = sign_file(&file.path, key).expect("a right image");
        assert_eq!((outcome.already_signed, outcome.signatures), (true, 2));
        assert_eq!(file.bytes(), both);
        verify(&both, &trust(key)).expect("both signatures count");
    }
    assert_eq!(signed(&unsigned(), &[&second, &first]), both, "the order of signing does not matter");
}

#[test]
fn a_damaged_image_is_not_signed() {
    let mut bytes = unsigned();
    let middle = bytes.len() - 1600;
    bytes[middle] ^= 1;
    let file = ImageFile::new(&bytes);
    assert!(matches!(sign_file(&file.path, &p256()), Err(SignError::Read(_))));
    assert_eq!(file.bytes(), bytes, "the file is as it was");
}

#[test]
fn an_image_takes_only_so_many_signatures() {
    let file = ImageFile::new(&unsigned());
    for _ in 0..MAX_SIGNATURES {
        file.sign(&key(KeyAlgorithm::Ed25519));
    }
    assert!(matches!(sign_file(&file.path, &p256()), Err(SignError::Full)));
}
