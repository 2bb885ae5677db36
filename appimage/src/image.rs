//! An image: first unverified, then verified. The types keep the two apart.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use hvm_types::{Digest, ImageConfig, PackageConfig, PackageName};

use crate::blob::{BlobDescriptor, BlobSource};
use crate::bundle::Bundle;
use crate::json;
use crate::key::KeyId;
use crate::layout::Layout;
use crate::limit::{MAX_BUNDLE_BYTES, MAX_CONFIG_BYTES, MAX_CONTENT_BYTES};
use crate::media_type::COMPONENT_TYPE;
use crate::read_error::ReadError;
use crate::tar_source::TarSource;
use crate::trust::TrustPolicy;
use crate::verify::{Signers, VerifyError};

/// An image of which index and manifests were read, and nothing was verified.
#[derive(Debug, Clone)]
pub struct UnverifiedImage {
    source: Arc<dyn BlobSource>,
    index: Vec<u8>,
    layout: Layout,
}

/// Exactly what has to be transferred so that the image can be opened elsewhere, with a
/// [`crate::DirSource`]. It is not trusted: whoever receives it verifies the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageListing {
    /// The image's digest: that of its manifest.
    pub manifest: Digest,
    /// The digest of the config, one of the blobs.
    pub config: Digest,
    /// The bytes of `index.json`.
    pub index: Vec<u8>,
    /// Every blob with its size, sorted by digest.
    pub blobs: Vec<(Digest, u64)>,
}

impl UnverifiedImage {
    /// Reads index and manifests from a source.
    ///
    /// # Errors
    /// Where they are missing, damaged, too large, or do not describe one AppImage.
    pub fn open(source: impl BlobSource + 'static) -> Result<Self, ReadError> {
        Self::open_shared(Arc::new(source))
    }

    /// The same for a source that others read too.
    ///
    /// # Errors
    /// As [`UnverifiedImage::open`].
    pub fn open_shared(source: Arc<dyn BlobSource>) -> Result<Self, ReadError> {
        let index = source.index()?;
        let layout = Layout::read(&*source, &index)?;
        Ok(Self { index, layout, source })
    }

    /// Opens an `.aimg` file.
    ///
    /// # Errors
    /// As [`TarSource::open`] and [`UnverifiedImage::open`].
    pub fn open_file(path: &Path) -> Result<Self, ReadError> {
        Self::open(TarSource::open(path)?)
    }

    /// The image's digest.
    #[must_use]
    pub fn manifest_digest(&self) -> Digest {
        self.layout.manifest.digest
    }

    /// What has to be transferred to have this image elsewhere.
    #[must_use]
    pub fn listing(&self) -> ImageListing {
        ImageListing {
            manifest: self.manifest_digest(),
            config: self.layout.config.digest,
            index: self.index.clone(),
            blobs: self.layout.blobs().into_iter().map(|blob| (blob.digest, blob.size)).collect(),
        }
    }

    /// The keys that the signatures say they were made with, for showing; `None` for a signature that names no
    /// key in our way. Nothing is verified.
    ///
    /// # Errors
    /// Where a signature can't be read.
    pub fn claimed_signers(&self) -> Result<Vec<Option<KeyId>>, ReadError> {
        let signatures = self.layout.signatures.iter();
        signatures
            .map(|signature| {
                let bytes = signature.bundle.read(&*self.source, "a signature", MAX_BUNDLE_BYTES)?;
                Ok(Bundle::parse(&bytes)?.claimed_key())
            })
            .collect()
    }

    /// Checks the signatures against the policy, then the size and digest of every blob.
    ///
    /// # Errors
    /// Every reason for which the image must not run.
    pub fn verify(self, policy: &TrustPolicy) -> Result<Image, VerifyError> {
        let signers = Signers::observe(&self.layout, &*self.source, policy)?;
        let config = self.read_config()?;
        let signers = signers.admit(&config, policy)?;
        self.check_blobs()?;
        Ok(self.into_image(config, signers))
    }

    /// Checks size and digest of every blob, and no signature: the image is what it was made as, but anybody
    /// may have made it.
    ///
    /// # Errors
    /// Where a blob is missing, too many or not what the manifest says.
    pub fn without_signature(self) -> Result<Image, ReadError> {
        let config = self.read_config()?;
        self.check_blobs()?;
        Ok(self.into_image(config, Vec::new()))
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    fn into_image(self, config: ImageConfig, signers: Vec<KeyId>) -> Image {
        Image { image: self, config, signers }
    }

    fn read_config(&self) -> Result<ImageConfig, ReadError> {
        let bytes = self.layout.config.read(&*self.source, "the config", MAX_CONFIG_BYTES)?;
        let config = json::parse("the config", &bytes)?;
        check_config(&config, &self.layout.contents)
            .map_err(|reason| ReadError::Document { what: "the config".to_owned(), reason })?;
        Ok(config)
    }

    fn check_blobs(&self) -> Result<(), ReadError> {
        let blobs = self.layout.blobs();
        if let Some(found) = self.source.all_blobs() {
            let named: BTreeSet<Digest> = blobs.iter().map(|blob| blob.digest).collect();
            if let Some(digest) = found.into_iter().find(|digest| !named.contains(digest)) {
                return Err(ReadError::StrayBlob { digest });
            }
        }
        blobs.iter().try_for_each(|blob| blob.copy(&*self.source, &mut |_| ()))
    }
}

/// An image whose content may be used.
#[derive(Debug, Clone)]
pub struct Image {
    image: UnverifiedImage,
    config: ImageConfig,
    signers: Vec<KeyId>,
}

impl Image {
    /// What it says of itself.
    #[must_use]
    pub fn config(&self) -> &ImageConfig {
        &self.config
    }

    /// The image's digest.
    #[must_use]
    pub fn manifest_digest(&self) -> Digest {
        self.image.manifest_digest()
    }

    /// The trusted keys that signed it; none where no signature was asked for.
    #[must_use]
    pub fn signers(&self) -> &[KeyId] {
        &self.signers
    }

    /// Every blob, each once, sorted by digest, signatures among them.
    #[must_use]
    pub fn blobs(&self) -> Vec<BlobDescriptor> {
        self.image.layout.blobs()
    }

    /// What has to be transferred to have this image elsewhere.
    #[must_use]
    pub fn listing(&self) -> ImageListing {
        self.image.listing()
    }

    /// Reads a package's component and checks it again: the source may have changed since.
    ///
    /// # Errors
    /// [`ReadError::NotInImage`], or what reading a blob may give.
    pub fn component(&self, package: &PackageName) -> Result<Vec<u8>, ReadError> {
        self.content(self.package(package)?.component)
    }

    /// Reads a static file of a package and checks it again.
    ///
    /// # Errors
    /// As [`Image::component`].
    pub fn file(&self, package: &PackageName, path: &str) -> Result<Vec<u8>, ReadError> {
        let file = self.package(package)?.files.get(path);
        let file = file.ok_or_else(|| ReadError::NotInImage {
            what: format!("file `{}` in its package {package}", path.escape_debug()),
        })?;
        self.content(file.digest)
    }

    fn package(&self, package: &PackageName) -> Result<&PackageConfig, ReadError> {
        self.config.packages.get(package).ok_or_else(|| {
            let names: Vec<_> = self.config.packages.keys().map(ToString::to_string).collect();
            ReadError::NotInImage { what: format!("package {package}; it has {}", names.join(", ")) }
        })
    }

    fn content(&self, digest: Digest) -> Result<Vec<u8>, ReadError> {
        let contents = &self.image.layout.contents;
        let content = contents.iter().find(|content| content.digest == digest);
        let content = content.expect("the config was checked to name only contents of the manifest");
        content.read(&*self.image.source, "a component or file", MAX_CONTENT_BYTES)
    }
}

/// Checks that config and manifest speak of the same contents, and that the config is as we write it.
fn check_config(config: &ImageConfig, contents: &[BlobDescriptor]) -> Result<(), String> {
    let contents: BTreeMap<Digest, &BlobDescriptor> = contents.iter().map(|c| (c.digest, c)).collect();
    let mut used = BTreeSet::new();
    if config.packages.is_empty() {
        return Err("it has no package".to_owned());
    }
    if let Some(problem) = config.schema().problem() {
        return Err(problem);
    }
    for (name, package) in &config.packages {
        match contents.get(&package.component) {
            Some(content) if content.media_type == COMPONENT_TYPE => used.insert(content.digest),
            _ => return Err(format!("the manifest does not hold the component of package {name}")),
        };
        if !package.capabilities.is_sorted_by(|a, b| a < b) {
            return Err(format!("the capabilities of package {name} are not sorted, each once"));
        }
        for (path, file) in &package.files {
            check_file_path(path)?;
            match contents.get(&file.digest) {
                Some(content) if content.size == file.size => used.insert(content.digest),
                _ => return Err(format!("the manifest does not hold file `{path}` of package {name}")),
            };
        }
    }
    match contents.keys().find(|digest| !used.contains(digest)) {
        Some(stray) => Err(format!("no package uses blob {stray}")),
        None => Ok(()),
    }
}

/// A path at which a guest may see a file: relative, with `/`, and with nothing in it that means another place.
pub(crate) fn check_file_path(path: &str) -> Result<(), String> {
    let fits = |part: &str| {
        !part.is_empty()
            && part != "."
            && part != ".."
            && !part.contains('\\')
            && !part.chars().any(char::is_control)
    };
    if path.len() <= 1024 && path.split('/').all(fits) {
        return Ok(());
    }
    let path: String = path.escape_debug().take(120).collect();
    Err(format!(
        "file path `{path}` is not allowed: it must be relative, without `.`, `..`, `\\` or control characters, and at most 1024 bytes long"
    ))
}
