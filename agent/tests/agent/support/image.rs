//! Signed images of the guests.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use guests_path::Guest;
use hvm_appimage::{
    BlobSource as _, ImageBuilder, KeyAlgorithm, PackageContent, SigningKey, TarSource, UnverifiedImage,
    sign_file,
};
use hvm_types::{BlobRef, Capability, Digest, ImageDocument};

/// A key, and the file that agents trust it by.
pub(crate) struct Keys {
    key: SigningKey,
    dir: tempfile::TempDir,
}

impl Keys {
    pub(crate) fn new() -> Self {
        let key = SigningKey::generate(KeyAlgorithm::EcdsaP256).expect("a key");
        let dir = tempfile::tempdir().expect("a temporary directory");
        std::fs::write(dir.path().join("test.pub"), key.public().to_pem()).expect("written");
        Self { key, dir }
    }

    /// The public key's file: a trust policy for all apps.
    pub(crate) fn policy(&self) -> PathBuf {
        self.dir.path().join("test.pub")
    }
}

/// An image as a scheduler would have it.
#[derive(Clone)]
pub(crate) struct Image {
    pub(crate) document: ImageDocument,
    pub(crate) blobs: Vec<(BlobRef, Vec<u8>)>,
}

impl Image {
    /// The guest as the package `web`, which requests these capabilities; signed where there is a key.
    pub(crate) fn new(guest: Guest, version: &str, capabilities: &[Capability], key: Option<&Keys>) -> Self {
        let component = std::fs::read(guest.component()).expect("a guest");
        let content = PackageContent { component, capabilities: capabilities.to_vec(), ..Default::default() };
        let app = guest.name().parse().expect("a name");
        let builder = ImageBuilder::new(app, version.parse().expect("a version"));
        let builder = builder.package("web".parse().expect("a name"), content).expect("a package");
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("test.aimg");
        builder.write_file(&path).expect("written");
        if let Some(keys) = key {
            sign_file(&path, &keys.key).expect("signed");
        }
        Self::read(&path, guest, version)
    }

    fn read(path: &Path, guest: Guest, version: &str) -> Self {
        let listing = UnverifiedImage::open_file(path).expect("an image").listing();
        let source = TarSource::open(path).expect("a file");
        let blobs: Vec<(BlobRef, Vec<u8>)> = listing
            .blobs
            .iter()
            .map(|(digest, size)| {
                let mut bytes = Vec::new();
                let mut blob = source.blob(*digest).expect("a blob");
                blob.reader.read_to_end(&mut bytes).expect("readable");
                (BlobRef { digest: *digest, size: *size }, bytes)
            })
            .collect();
        let document = ImageDocument {
            manifest: listing.manifest,
            config: listing.config,
            index: String::from_utf8(listing.index).expect("JSON is text"),
            blobs: blobs.iter().map(|(blob, _)| *blob).collect(),
            app: guest.name().parse().expect("a name"),
            version: version.parse().expect("a version"),
        };
        Self { document, blobs }
    }

    /// The probe with all it needs.
    pub(crate) fn probe(version: &str, keys: &Keys) -> Self {
        Self::new(Guest::Probe, version, &Capability::ALL, Some(keys))
    }

    pub(crate) fn manifest(&self) -> Digest {
        self.document.manifest
    }
}
