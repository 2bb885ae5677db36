//! Puts an image together from components and files, without a manifest file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use hvm_types::{AppName, Capability, Digest, ImageConfig, PackageConfig, PackageName, StaticFile};

use crate::blob::BlobDescriptor;
use crate::component::{ComponentError, check_component};
use crate::image::check_file_path;
use crate::json;
use crate::layout::Layout;
use crate::limit::{MAX_CONFIG_BYTES, MAX_CONTENT_BYTES, MAX_CONTENTS, MAX_IMAGE_BYTES};
use crate::media_type::{ARTIFACT_TYPE, COMPONENT_TYPE, CONFIG_TYPE, FILE_TYPE, MANIFEST_TYPE};
use crate::oci::ManifestDocument;
use crate::write::{Content, ContentBytes, WriteError, write_bytes, write_file};

/// What one package holds.
#[derive(Debug, Clone, Default)]
pub struct PackageContent {
    /// The component's bytes.
    pub component: Vec<u8>,
    /// The capabilities it requests; order and repetition do not matter.
    pub capabilities: Vec<Capability>,
    /// Static files: the path at which the guest sees each, and the file that holds it.
    pub files: BTreeMap<String, PathBuf>,
}

/// Why an image can't be put together.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A component would be refused by every host.
    #[error("the component of package {package} cannot be packed")]
    Component {
        /// The package.
        package: PackageName,
        /// Why.
        source: ComponentError,
    },
    /// A static file can't be read.
    #[error("cannot read {}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A static file's path is not allowed, or the image would exceed a limit.
    #[error("the image cannot be packed: {reason}")]
    Invalid {
        /// Why.
        reason: String,
    },
    /// The image can't be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// An image in the making. The same input always gives the same bytes.
#[derive(Debug)]
pub struct ImageBuilder {
    config: ImageConfig,
    components: BTreeMap<Digest, Content>,
    files: BTreeMap<Digest, Content>,
}

impl ImageBuilder {
    /// An image without packages.
    #[must_use]
    pub fn new(app: AppName, version: semver::Version) -> Self {
        let config =
            ImageConfig { app, version, state_schema: 1, migrates_from: None, packages: BTreeMap::new() };
        Self { config, components: BTreeMap::new(), files: BTreeMap::new() }
    }

    /// Sets the version of the state's layout, from 1; 1 where it is not called.
    #[must_use]
    pub fn state_schema(mut self, version: u32) -> Self {
        self.config.state_schema = version;
        self
    }

    /// Sets the oldest version of the state's layout that the app migrates; none where it is not called.
    #[must_use]
    pub fn migrates_from(mut self, version: Option<u32>) -> Self {
        self.config.migrates_from = version;
        self
    }

    /// Adds a package, after checking that its component imports nothing that it does not request. Static
    /// files are read again when the image is written.
    ///
    /// # Errors
    /// Where a host would refuse it, or a file can't be read.
    pub fn package(mut self, name: PackageName, content: PackageContent) -> Result<Self, BuildError> {
        let mut capabilities = content.capabilities;
        capabilities.sort();
        capabilities.dedup();
        check_component(&content.component, &capabilities)
            .map_err(|source| BuildError::Component { package: name.clone(), source })?;
        let component = Digest::of(&content.component);
        self.components.insert(component, Content::of(content.component));
        let mut files = BTreeMap::new();
        for (path, file) in content.files {
            check_file_path(&path).map_err(|reason| BuildError::Invalid { reason })?;
            files.insert(path, self.add_file(file)?);
        }
        self.config.packages.insert(name, PackageConfig { component, capabilities, files });
        Ok(self)
    }

    fn add_file(&mut self, path: PathBuf) -> Result<StaticFile, BuildError> {
        let size = std::fs::metadata(&path).map(|metadata| metadata.len());
        let too_large = |size| BuildError::Invalid {
            reason: format!(
                "{} has {size} bytes, and {MAX_CONTENT_BYTES} is the most for one file",
                path.display()
            ),
        };
        match size {
            Ok(size) if size > MAX_CONTENT_BYTES => return Err(too_large(size)),
            _ => {}
        }
        let bytes = std::fs::read(&path).map_err(|source| BuildError::File { path: path.clone(), source })?;
        let (digest, size) = (Digest::of(&bytes), bytes.len() as u64);
        self.files.insert(digest, Content { size, bytes: ContentBytes::File(path) });
        Ok(StaticFile { digest, size })
    }

    /// Writes the image to a file and returns its digest.
    ///
    /// # Errors
    /// Where a limit is exceeded, a static file changed meanwhile, or the file can't be written.
    pub fn write_file(self, path: &Path) -> Result<Digest, BuildError> {
        let (layout, blobs) = self.finish()?;
        write_file(path, &layout.encode_index(), &blobs)?;
        Ok(layout.manifest.digest)
    }

    /// Writes the image to memory.
    ///
    /// # Errors
    /// As [`ImageBuilder::write_file`].
    pub fn write_bytes(self) -> Result<Vec<u8>, BuildError> {
        let (layout, blobs) = self.finish()?;
        Ok(write_bytes(&layout.encode_index(), &blobs)?)
    }

    fn finish(mut self) -> Result<(Layout, BTreeMap<Digest, Content>), BuildError> {
        // A component that is also a static file is one blob.
        self.files.retain(|digest, _| !self.components.contains_key(digest));
        self.check_limits()?;
        let describe = |blobs: &BTreeMap<Digest, Content>, media_type: &str| -> Vec<BlobDescriptor> {
            let describe = |(digest, content): (&Digest, &Content)| BlobDescriptor {
                digest: *digest,
                size: content.size,
                media_type: media_type.to_owned(),
            };
            blobs.iter().map(describe).collect()
        };
        let mut contents = describe(&self.components, COMPONENT_TYPE);
        contents.extend(describe(&self.files, FILE_TYPE));
        let config_bytes = json::encode(&self.config);
        if config_bytes.len() as u64 > MAX_CONFIG_BYTES {
            let reason =
                format!("its config has {} bytes, and {MAX_CONFIG_BYTES} is the most", config_bytes.len());
            return Err(BuildError::Invalid { reason });
        }
        let config = BlobDescriptor::of(CONFIG_TYPE, &config_bytes);
        let document = ManifestDocument {
            artifact_type: ARTIFACT_TYPE.to_owned(),
            config,
            layers: contents,
            subject: None,
        };
        let manifest_bytes = document.encode();
        let layout = Layout {
            manifest: BlobDescriptor::of(MANIFEST_TYPE, &manifest_bytes),
            config: document.config,
            contents: document.layers,
            signatures: Vec::new(),
        };
        let mut blobs = self.components;
        blobs.append(&mut self.files);
        blobs.insert(layout.config.digest, Content::of(config_bytes));
        blobs.insert(layout.manifest.digest, Content::of(manifest_bytes));
        Ok((layout, blobs))
    }

    fn check_limits(&self) -> Result<(), BuildError> {
        let invalid = |reason| Err(BuildError::Invalid { reason });
        if self.config.packages.is_empty() {
            return invalid("it has no package".to_owned());
        }
        if let Some(problem) = self.config.schema().problem() {
            return invalid(problem);
        }
        let contents = self.components.len() + self.files.len();
        if contents > MAX_CONTENTS {
            return invalid(format!(
                "it has {contents} components and files, and {MAX_CONTENTS} is the most"
            ));
        }
        let sizes = self.components.values().chain(self.files.values()).map(|content| content.size);
        if let Some(size) = sizes.clone().find(|size| *size > MAX_CONTENT_BYTES) {
            return invalid(format!("a component has {size} bytes, and {MAX_CONTENT_BYTES} is the most"));
        }
        let total: u64 = sizes.sum();
        if total > MAX_IMAGE_BYTES {
            return invalid(format!("it has {total} bytes, and {MAX_IMAGE_BYTES} is the most"));
        }
        Ok(())
    }
}
