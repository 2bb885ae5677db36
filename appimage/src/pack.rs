//! Packs an app's directory: `appimage.toml`, components that are there, and static files. Builds nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use hvm_types::Digest;

use crate::app_manifest::{AppManifest, ComponentSource, ManifestError, PackageManifest};
use crate::builder::{BuildError, ImageBuilder, PackageContent};
use crate::limit::{MAX_CONTENT_BYTES, MAX_CONTENTS};
use crate::stale::newer_source;

/// Deepest nesting of static files' directories.
const MAX_DIRECTORY_LEVELS: usize = 32;

/// Why a directory can't be packed.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// `appimage.toml` is missing or wrong.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// A package has to be built first.
    #[error("package {package} is not built: {} is missing; run `appimage-tool build` first", .path.display())]
    NotBuilt {
        /// The package.
        package: String,
        /// Where the built component belongs.
        path: PathBuf,
    },
    /// A package was built, and changed since.
    #[error(
        "package {package} is not built as it is now: {} was written after {}; run `appimage-tool build` first",
        .source_file.display(), .path.display()
    )]
    Stale {
        /// The package.
        package: String,
        /// Its built component.
        path: PathBuf,
        /// A source that is newer.
        source_file: PathBuf,
    },
    /// A component can't be read.
    #[error("cannot read {}, the component of package {package}", .path.display())]
    Component {
        /// The package.
        package: String,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The static files can't be read.
    #[error("cannot read the static files of package {package}: {reason}")]
    Files {
        /// The package.
        package: String,
        /// What is wrong.
        reason: String,
    },
    /// The image can't be put together or written.
    #[error(transparent)]
    Build(#[from] BuildError),
}

impl PackageManifest {
    /// Where the package's component is, or will be once it is built.
    #[must_use]
    pub fn component_path(&self, directory: &Path) -> PathBuf {
        match &self.component {
            ComponentSource::File(path) => directory.join(path),
            ComponentSource::Build(_) => {
                directory.join("target").join("appimage").join(format!("{}.wasm", self.name))
            }
        }
    }
}

/// Packs the app in `directory` into the file `out`, and returns the image's digest.
///
/// # Errors
/// Where anything is missing, wrong or too large.
pub fn pack_directory(directory: &Path, out: &Path) -> Result<Digest, PackError> {
    let manifest = AppManifest::load(directory)?;
    let mut builder = ImageBuilder::new(manifest.app, manifest.version)
        .state_schema(manifest.schema.version)
        .migrates_from(manifest.schema.migrates_from);
    for package in manifest.packages {
        let component = read_component(directory, &package)?;
        let files = match &package.files {
            Some(files) => collect_files(&directory.join(files))
                .map_err(|reason| PackError::Files { package: package.name.to_string(), reason })?,
            None => BTreeMap::new(),
        };
        let content = PackageContent { component, capabilities: package.capabilities, files };
        builder = builder.package(package.name, content)?;
    }
    Ok(builder.write_file(out)?)
}

fn read_component(directory: &Path, package: &PackageManifest) -> Result<Vec<u8>, PackError> {
    let path = package.component_path(directory);
    let built = matches!(package.component, ComponentSource::Build(_));
    let name = package.name.to_string();
    let metadata = match std::fs::metadata(&path) {
        Ok(metadata) => metadata,
        Err(error) if built && error.kind() == std::io::ErrorKind::NotFound => {
            return Err(PackError::NotBuilt { package: name, path });
        }
        Err(source) => return Err(PackError::Component { package: name, path, source }),
    };
    if let ComponentSource::Build(source) = &package.component
        && let Some(source_file) =
            metadata.modified().ok().and_then(|built| newer_source(&directory.join(source), built))
    {
        return Err(PackError::Stale { package: name, path, source_file });
    }
    let size = metadata.len();
    if size > MAX_CONTENT_BYTES {
        let reason = format!("{} has {size} bytes, and {MAX_CONTENT_BYTES} is the most", path.display());
        return Err(BuildError::Invalid { reason }.into());
    }
    std::fs::read(&path).map_err(|source| PackError::Component { package: name, path, source })
}

/// The files under a directory, by their path in it. Links are refused: what a link points at may lie
/// anywhere, and is different on another machine.
fn collect_files(root: &Path) -> Result<BTreeMap<String, PathBuf>, String> {
    let mut files = BTreeMap::new();
    let mut directories = vec![(root.to_owned(), String::new(), 0)];
    while let Some((directory, prefix, level)) = directories.pop() {
        if level > MAX_DIRECTORY_LEVELS {
            return Err(format!("{} is nested too deep", directory.display()));
        }
        let failed = |error: std::io::Error| format!("{}: {error}", directory.display());
        for entry in std::fs::read_dir(&directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let kind = entry.file_type().map_err(failed)?;
            let name = entry.file_name();
            let name = name
                .to_str()
                .ok_or_else(|| format!("the name of {} is not UTF-8", entry.path().display()))?;
            if kind.is_dir() {
                directories.push((entry.path(), format!("{prefix}{name}/"), level + 1));
            } else if kind.is_file() {
                files.insert(format!("{prefix}{name}"), entry.path());
            } else {
                return Err(format!("{} is neither a file nor a directory", entry.path().display()));
            }
            if files.len() > MAX_CONTENTS {
                return Err(format!("there are more than {MAX_CONTENTS}"));
            }
        }
    }
    Ok(files)
}
