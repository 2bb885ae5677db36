//! Our signatures before Sigstore's own verifier, `@sigstore/verify`. Needs node and npm.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hvm_appimage::KeyAlgorithm;
use hvm_types::Digest;
use serde_json::{Value, json};

use crate::images::{key, signed, unsigned};
use crate::raw_tar::Layout;

const SOURCES: [&str; 3] = ["package.json", "package-lock.json", "verify.mjs"];

/// The directory with the verifier in it, installed once for each content of its sources.
fn ensure_verifier() -> PathBuf {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sigstore");
    let contents = SOURCES.map(|name| fs::read(sources.join(name)).expect("a file of this project"));
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(|| {
        let home = std::env::var_os("HOME")?;
        Some(Path::new(&home).join(".cache"))
    });
    let cache = cache.expect("HOME or XDG_CACHE_HOME says where caches are").join("hvm");
    let installed = cache.join(format!("npm-{}", Digest::of(&contents.concat()).short()));
    if installed.join("node_modules").is_dir() {
        return installed;
    }
    fs::create_dir_all(&cache).expect("a writable cache");
    let staging = tempfile::tempdir_in(&cache).expect("a writable cache");
    for (name, content) in SOURCES.iter().zip(contents) {
        fs::write(staging.path().join(name), content).expect("a writable cache");
    }
    let output = Command::new("npm")
        .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
        .current_dir(staging.path())
        .output()
        .expect("npm is installed (this test needs node and npm, for example `apt-get install nodejs npm`)");
    assert!(output.status.success(), "npm ci failed:\n{}", String::from_utf8_lossy(&output.stderr));
    // Another test run may have been first; its result is as good.
    if fs::rename(staging.path(), &installed).is_err() {
        assert!(
            installed.join("node_modules").is_dir(),
            "cannot put the verifier into {}",
            installed.display()
        );
    }
    installed
}

/// Null for each bundle that the verifier accepts, and its reason for each other.
fn refusals(cases: &Value) -> Vec<Option<String>> {
    let mut node = Command::new("node")
        .arg("verify.mjs")
        .current_dir(ensure_verifier())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("node is installed (this test needs node and npm)");
    let mut stdin = node.stdin.take().expect("it is piped");
    stdin.write_all(cases.to_string().as_bytes()).expect("node reads its input");
    drop(stdin);
    let output = node.wait_with_output().expect("node ends");
    assert!(output.status.success(), "the verifier itself failed");
    serde_json::from_slice(&output.stdout).expect("the verifier answers in JSON")
}

#[test]
fn sigstores_own_verifier_accepts_our_bundles_and_refuses_tampered_ones() {
    let keys = [KeyAlgorithm::EcdsaP256, KeyAlgorithm::Ed25519].map(key);
    let mut cases = Vec::new();
    for key in &keys {
        let bundle = Layout::of(&signed(&unsigned(), &[key])).bundle(0);
        let mut tampered = bundle.clone();
        let payload = tampered["dsseEnvelope"]["payload"].as_str().expect("base64");
        let mut payload = STANDARD.decode(payload).expect("base64");
        let digest_at = payload.windows(8).position(|part| part == b"\"sha256\"").expect("a digest") + 12;
        payload[digest_at] = if payload[digest_at] == b'0' { b'1' } else { b'0' };
        tampered["dsseEnvelope"]["payload"] = STANDARD.encode(payload).into();
        cases.push(json!({ "bundle": bundle, "key": key.public().to_pem() }));
        cases.push(json!({ "bundle": tampered, "key": key.public().to_pem() }));
        let stranger = crate::images::key(key.public().algorithm());
        cases.push(json!({ "bundle": bundle, "key": stranger.public().to_pem() }));
    }
    let answers = refusals(&Value::Array(cases));
    assert_eq!(answers.len(), 6);
    for (number, answer) in answers.iter().enumerate() {
        match number % 3 {
            0 => assert_eq!(*answer, None, "one of our bundles was refused"),
            _ => {
                let reason = answer.as_deref().expect("a tampered bundle, or another key, was accepted");
                assert!(reason.contains("signature"), "refused for another reason: {reason}");
            }
        }
    }
}
