//! Trust policies: what each line of one changes, and that nothing wrong is taken for trust.

use std::path::{Path, PathBuf};

use hvm_appimage::{PolicyError, SigningKey, TrustPolicy, VerifyError};
use tempfile::TempDir;

use crate::images::{builder, p256, signed, unsigned, verify};

struct Policies {
    directory: TempDir,
}

impl Policies {
    fn new(keys: &[(&str, &SigningKey)]) -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        for (name, key) in keys {
            std::fs::write(directory.path().join(name), key.public().to_pem()).expect("a writable directory");
        }
        Self { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn load(&self, text: &str) -> Result<TrustPolicy, PolicyError> {
        let path = self.path("trust.toml");
        std::fs::write(&path, text).expect("a writable directory");
        TrustPolicy::load(&path)
    }
}

#[test]
fn a_public_key_alone_is_a_policy() {
    let key = p256();
    let policies = Policies::new(&[("release.pub", &key)]);
    let policy = TrustPolicy::load(&policies.path("release.pub")).expect("a key");
    verify(&signed(&unsigned(), &[&key]), &policy).expect("the key is trusted for every app");
}

#[test]
fn a_key_signs_only_the_apps_that_it_may() {
    let key = p256();
    let policies = Policies::new(&[("a.pub", &key)]);
    let image = signed(&unsigned(), &[&key]);
    for (apps, may) in [
        (r#"["hello"]"#, true),
        (r#"["other", "hel*"]"#, true),
        (r#"["*"]"#, true),
        (r#"["hell"]"#, false),
        (r#"["hello-*"]"#, false),
    ] {
        let policy = policies.load(&format!("[[key]]\nfile = \"a.pub\"\napps = {apps}")).expect("a policy");
        match verify(&image, &policy) {
            Ok(_) => assert!(may, "{apps} let it through"),
            Err(VerifyError::KeyNotForApp { app, .. }) => assert!(!may && app.as_str() == "hello", "{apps}"),
            Err(error) => panic!("{apps}: {error}"),
        }
    }
}

#[test]
fn a_threshold_counts_different_keys() {
    let (first, second) = (p256(), p256());
    let policies = Policies::new(&[("a.pub", &first), ("b.pub", &second)]);
    let keys = "[[key]]\nfile = \"a.pub\"\napps = [\"*\"]\n[[key]]\nfile = \"b.pub\"\napps = [\"*\"]";
    let policy = policies.load(&format!("threshold = 2\n{keys}")).expect("a policy");
    let one = signed(&unsigned(), &[&first]);
    let error = verify(&one, &policy).expect_err("one is too few");
    assert!(matches!(error, VerifyError::TooFewSignatures { found: 1, needed: 2 }), "{error}");
    let image = verify(&signed(&one, &[&second]), &policy).expect("two are enough");
    assert_eq!(image.signers().len(), 2);
}

#[test]
fn a_revoked_key_counts_no_more() {
    let (stolen, good) = (p256(), p256());
    let policies = Policies::new(&[("a.pub", &stolen), ("b.pub", &good)]);
    let keys = "[[key]]\nfile = \"a.pub\"\napps = [\"*\"]\n[[key]]\nfile = \"b.pub\"\napps = [\"*\"]";
    let policy = policies.load(&format!("revoked = [\"{}\"]\n{keys}", stolen.public().id()));
    let policy = policy.expect("a policy");
    let image = signed(&unsigned(), &[&stolen]);
    let error = verify(&image, &policy).expect_err("the key is revoked");
    assert!(matches!(&error, VerifyError::Revoked { key } if *key == stolen.public().id()), "{error}");
    verify(&signed(&image, &[&good]), &policy).expect("the good signature counts");
}

#[test]
fn an_old_version_is_refused() {
    let key = p256();
    let policies = Policies::new(&[("a.pub", &key)]);
    let load = |lowest: &str| {
        let text = format!("[[key]]\nfile = \"a.pub\"\napps = [\"*\"]\n[lowest]\nhello = \"{lowest}\"");
        policies.load(&text).expect("a policy")
    };
    let directory = TempDir::new().expect("a temporary directory");
    let image = |version| {
        let image = builder("hello", version, directory.path()).write_bytes().expect("an image");
        signed(&image, &[&key])
    };
    verify(&image("1.2.3"), &load("1.2.3")).expect("not below");
    verify(&image("1.2.3+first"), &load("1.2.3+second")).expect("build numbers do not count");
    for version in ["1.2.2", "1.2.3-rc.1"] {
        let error = verify(&image(version), &load("1.2.3")).expect_err("too old");
        assert!(matches!(error, VerifyError::BelowLowest { .. }), "{error}");
    }
}

#[test]
fn a_wrong_policy_trusts_nothing_and_says_where_it_is_wrong() {
    let key = p256();
    let policies = Policies::new(&[("a.pub", &key)]);
    std::fs::write(policies.path("secret"), p256().to_pem()).expect("a writable directory");
    let right = "[[key]]\nfile = \"a.pub\"\napps = [\"*\"]\n";
    policies.load(right).expect("it is right as it stands");
    for (text, expected) in [
        (String::new(), "trusts no key"),
        ("threshold = 1".to_owned(), "trusts no key"),
        (format!("threshold = 0\n{right}"), "trust.toml:1: field `threshold`"),
        (format!("threshold = 2\n{right}"), "number of keys, 1"),
        (format!("{right}{right}"), "trust.toml:4: key"),
        (format!("treshold = 2\n{right}"), "unknown field `treshold`"),
        (format!("{right}app = 1"), "unknown field `app`"),
        (format!("revoked = [\"abc\"]\n{right}"), "trust.toml:1: field `revoked`"),
        (format!("{right}[lowest]\nhello = \"1.x\""), "trust.toml:5: field `hello`"),
        ("[[key]]\napps = [\"*\"]".to_owned(), "either `file` or `pem`"),
        ("[[key]]\nfile = \"a.pub\"\napps = []".to_owned(), "may sign nothing"),
        ("[[key]]\nfile = \"a.pub\"\napps = [\"a*b\"]".to_owned(), "trust.toml:3: field `apps`"),
        ("[[key]]\npem = \"x\"\napps = [\"*\"]".to_owned(), "`pem`: this is not"),
        ("[[key]]\nfile = \"secret\"\napps = [\"*\"]".to_owned(), "secret as a public key"),
        ("[[key]]\nfile = \"none.pub\"\napps = [\"*\"]".to_owned(), "cannot read"),
    ] {
        let error = policies.load(&text).expect_err("a wrong policy was taken");
        assert!(error.to_string().contains(expected), "{expected}: {error}");
    }
    assert!(TrustPolicy::load(Path::new("/does/not/exist")).is_err());
}
