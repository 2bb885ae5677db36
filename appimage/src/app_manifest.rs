//! `appimage.toml`: what an author writes, as types.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use hvm_types::{AppName, Capability, PackageName, StateSchema};
use serde::Deserialize;
use toml::Spanned;

use crate::text_position::{TomlError, parse_toml};

/// Largest `appimage.toml`, in bytes.
const MAX_MANIFEST_FILE_BYTES: u64 = 1 << 20;

/// An app as its author declares it. Paths are relative to the directory of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppManifest {
    /// The app.
    pub app: AppName,
    /// Its version.
    pub version: semver::Version,
    /// The layout of its durable state, and the older ones that it migrates.
    pub schema: StateSchema,
    /// Its packages, in the order of the file.
    pub packages: Vec<PackageManifest>,
}

/// A package as its author declares it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackageManifest {
    /// Its name.
    pub name: PackageName,
    /// Where its component comes from.
    pub component: ComponentSource,
    /// What it requests.
    pub capabilities: Vec<Capability>,
    /// The directory of its static files.
    pub files: Option<PathBuf>,
}

/// Where a component comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ComponentSource {
    /// `component`: a file that is there.
    File(PathBuf),
    /// `build`: the directory of a Rust crate, which `appimage-tool build` builds.
    Build(PathBuf),
}

/// Why there is no usable `appimage.toml`.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// There is none.
    #[error("there is no {} in {}", AppManifest::FILE_NAME, .directory.display())]
    Missing {
        /// Where it was looked for.
        directory: PathBuf,
    },
    /// It can't be read.
    #[error("cannot read {}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is wrong; the text names file, line and field.
    #[error("{0}")]
    Invalid(String),
}

impl From<TomlError> for ManifestError {
    fn from(error: TomlError) -> Self {
        Self::Invalid(error.to_string())
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ManifestFile {
    app: AppTable,
    #[serde(default)]
    package: Vec<Spanned<PackageTable>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AppTable {
    name: AppName,
    version: semver::Version,
    state_schema: Option<Spanned<u32>>,
    migrates_from: Option<Spanned<u32>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PackageTable {
    name: Spanned<PackageName>,
    component: Option<Spanned<PathBuf>>,
    build: Option<Spanned<PathBuf>>,
    #[serde(default)]
    capabilities: Vec<Capability>,
    files: Option<Spanned<PathBuf>>,
}

impl AppManifest {
    /// The file's name.
    pub const FILE_NAME: &'static str = "appimage.toml";

    /// Reads the manifest of an app's directory.
    ///
    /// # Errors
    /// Where it is missing or wrong.
    pub fn load(directory: &Path) -> Result<Self, ManifestError> {
        use std::io::Read as _;
        let path = directory.join(Self::FILE_NAME);
        let io = |source| ManifestError::Io { path: path.clone(), source };
        let file = match std::fs::File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(ManifestError::Missing { directory: directory.to_owned() });
            }
            Err(error) => return Err(io(error)),
        };
        let mut text = String::new();
        file.take(MAX_MANIFEST_FILE_BYTES).read_to_string(&mut text).map_err(io)?;
        Self::parse(&path, &text)
    }

    /// Reads a manifest from its text; `path` is for errors.
    ///
    /// # Errors
    /// Where it is wrong.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ManifestError> {
        let file: ManifestFile = parse_toml(path, text)?;
        let invalid = |span, reason: &str| TomlError::at(path, text, span, reason);
        let version = match file.app.state_schema {
            Some(version) if *version.get_ref() == 0 => {
                return Err(invalid(version.span(), "the first state schema is 1").into());
            }
            version => version.map_or(1, Spanned::into_inner),
        };
        let migrates_from = match file.app.migrates_from {
            Some(from) if !(1..version).contains(from.get_ref()) => {
                let reason = "a migration begins with an older state schema: write 1 to `state_schema` - 1";
                return Err(invalid(from.span(), reason).into());
            }
            from => from.map(Spanned::into_inner),
        };
        if file.package.is_empty() {
            return Err(invalid(0..0, "the app has no package: add a [[package]]").into());
        }
        let mut names = BTreeSet::new();
        let mut packages = Vec::new();
        for table in file.package {
            let span = table.span();
            let table = table.into_inner();
            if !names.insert(table.name.get_ref().clone()) {
                return Err(invalid(table.name.span(), "another package has this name").into());
            }
            packages.push(read_package(table, span, &invalid)?);
        }
        let schema = StateSchema { version, migrates_from };
        let keeps_keys = |package: &PackageManifest| package.capabilities.contains(&Capability::Keyvalue);
        if migrates_from.is_some() && !packages.iter().any(keeps_keys) {
            let reason = "`migrates_from` is for state, and no package requests the capability `keyvalue`";
            return Err(invalid(0..0, reason).into());
        }
        Ok(Self { app: file.app.name, version: file.app.version, schema, packages })
    }
}

type Span = std::ops::Range<usize>;

fn read_package(
    table: PackageTable,
    span: Span,
    invalid: &dyn Fn(Span, &str) -> TomlError,
) -> Result<PackageManifest, TomlError> {
    let inside = |path: Spanned<PathBuf>| {
        let stays = |part| matches!(part, Component::Normal(_) | Component::CurDir);
        if path.get_ref().components().all(stays) && path.get_ref() != Path::new("") {
            return Ok(path.into_inner());
        }
        Err(invalid(path.span(), "the path must stay inside the directory of appimage.toml"))
    };
    let component = match (table.component, table.build) {
        (Some(file), None) => ComponentSource::File(inside(file)?),
        (None, Some(directory)) => ComponentSource::Build(inside(directory)?),
        (Some(file), Some(_)) => {
            return Err(invalid(file.span(), "a package has either `component` or `build`, not both"));
        }
        (None, None) => {
            let reason =
                "the package needs `component = \"file.wasm\"` or `build = \"directory of a Rust crate\"`";
            return Err(invalid(span, reason));
        }
    };
    let files = table.files.map(inside).transpose()?;
    Ok(PackageManifest { name: table.name.into_inner(), component, capabilities: table.capabilities, files })
}
