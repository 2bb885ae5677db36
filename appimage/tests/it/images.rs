//! Images and keys for tests.

use std::path::{Path, PathBuf};

use hvm_appimage::{
    Image, ImageBuilder, KeyAlgorithm, PackageContent, ReadError, SigningKey, TarSource, TrustPolicy,
    UnverifiedImage, VerifyError, sign_file,
};
use hvm_types::Capability;
use tempfile::TempDir;

/// A component that imports these instances and exports the request handler. It has no code.
pub(crate) fn component(imports: &[&str]) -> Vec<u8> {
    let imports: String = imports.iter().map(|i| format!("(import \"{i}\" (instance))\n")).collect();
    let text = format!(
        "(component {imports} (instance $handler)
           (export \"wasi:http/incoming-handler@0.2.3\" (instance $handler)))"
    );
    wat::parse_str(text).expect("a component in text form")
}

/// An image in the making: `hello` with a package `web`, which has a static file.
pub(crate) fn builder(app: &str, version: &str, directory: &Path) -> ImageBuilder {
    let file = directory.join("index.html");
    std::fs::write(&file, "<h1>hello</h1>").expect("a writable directory");
    let content = PackageContent {
        component: component(&["wasi:io/poll@0.2.6", "wasi:keyvalue/store@0.2.0-draft"]),
        capabilities: vec![Capability::Keyvalue],
        files: [("index.html".to_owned(), file)].into(),
    };
    ImageBuilder::new(app.parse().expect("a name"), version.parse().expect("a version"))
        .package("web".parse().expect("a name"), content)
        .expect("a right package")
}

/// An image that nobody signed.
pub(crate) fn unsigned() -> Vec<u8> {
    let directory = TempDir::new().expect("a temporary directory");
    builder("hello", "1.2.3", directory.path()).write_bytes().expect("an image")
}

/// An `.aimg` file in a directory of its own.
pub(crate) struct ImageFile {
    _directory: TempDir,
    pub(crate) path: PathBuf,
}

impl ImageFile {
    pub(crate) fn new(bytes: &[u8]) -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        let path = directory.path().join("test.aimg");
        std::fs::write(&path, bytes).expect("a writable directory");
        Self { _directory: directory, path }
    }

    pub(crate) fn sign(&self, key: &SigningKey) -> &Self {
        sign_file(&self.path, key).expect("an image that can be signed");
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        std::fs::read(&self.path).expect("the file is there")
    }
}

pub(crate) fn signed(image: &[u8], keys: &[&SigningKey]) -> Vec<u8> {
    let file = ImageFile::new(image);
    for key in keys {
        file.sign(key);
    }
    file.bytes()
}

pub(crate) fn key(algorithm: KeyAlgorithm) -> SigningKey {
    SigningKey::generate(algorithm).expect("the system has randomness")
}

pub(crate) fn p256() -> SigningKey {
    key(KeyAlgorithm::EcdsaP256)
}

pub(crate) fn trust(key: &SigningKey) -> TrustPolicy {
    TrustPolicy::of_key(key.public().clone())
}

pub(crate) fn verify(image: &[u8], policy: &TrustPolicy) -> Result<Image, VerifyError> {
    UnverifiedImage::open(TarSource::from_bytes(image.to_vec())?)?.verify(policy)
}

/// Everything that is checked without a key.
pub(crate) fn check(image: &[u8]) -> Result<Image, ReadError> {
    UnverifiedImage::open(TarSource::from_bytes(image.to_vec())?)?.without_signature()
}
