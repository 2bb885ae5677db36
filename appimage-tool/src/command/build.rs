//! `appimage-tool build`: source to components, by the scripts of the guest SDK, which this program carries.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use hvm_appimage::{AppManifest, ComponentSource, PackageManifest, check_component};

use super::size_text::size_text;
use crate::arguments::Build;
use crate::failure::Failure;

const SCRIPTS: [(&str, &str); 2] = [
    ("build-guest", include_str!("../../../guest-sdk/build-guest")),
    ("toolchain", include_str!("../../../guest-sdk/toolchain")),
];

pub(crate) fn run(arguments: &Build) -> Result<String, Failure> {
    let manifest = AppManifest::load(&arguments.dir)
        .map_err(|error| Failure::from(error).hint("`appimage-tool new NAME` makes an app to start from"))?;
    let mut output = String::new();
    for package in &manifest.packages {
        let ComponentSource::Build(source) = &package.component else { continue };
        let built = build(&arguments.dir.join(source).components().collect::<PathBuf>())?;
        let component = fs::read(&built)
            .map_err(|error| Failure::new(format!("cannot read {}: {error}", built.display())))?;
        check_component(&component, &package.capabilities).map_err(|error| {
            Failure::new(format!("package {} was built but cannot be packed: {error}", package.name))
        })?;
        let path = keep(&arguments.dir, package, &component)?;
        let size = size_text(component.len() as u64);
        output += &format!("package {}: {} ({size})\n", package.name, path.display());
    }
    if output.is_empty() {
        output = "nothing to build: no package of appimage.toml has `build`\n".to_owned();
    }
    Ok(output)
}

/// Builds a crate and returns where its component is.
fn build(crate_directory: &Path) -> Result<PathBuf, Failure> {
    let failed =
        |what: &str, error: std::io::Error| Failure::new(format!("cannot {what} the build scripts: {error}"));
    let scripts = tempfile::Builder::new()
        .prefix("appimage-tool-")
        .tempdir()
        .map_err(|error| failed("write", error))?;
    for (name, text) in SCRIPTS {
        let path = scripts.path().join(name);
        fs::write(&path, text).map_err(|error| failed("write", error))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
            .map_err(|error| failed("write", error))?;
    }
    let output = Command::new("bash")
        .arg(scripts.path().join("build-guest"))
        .arg(crate_directory)
        .env("HVM_GUEST_TOOLCHAIN", scripts.path().join("toolchain"))
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| failed("run", error).hint("`appimage-tool build` needs bash"))?;
    if !output.status.success() {
        let error = format!("cannot build {}; the messages above say why", crate_directory.display());
        return Err(Failure::new(error));
    }
    let output = String::from_utf8_lossy(&output.stdout);
    match output.lines().last() {
        Some(path) => Ok(PathBuf::from(path)),
        None => Err(Failure::new(format!("building {} gave no component", crate_directory.display()))),
    }
}

/// Puts the component where `pack` finds it, whole or not at all.
fn keep(directory: &Path, package: &PackageManifest, component: &[u8]) -> Result<PathBuf, Failure> {
    let path = package.component_path(directory);
    let parent = path.parent().expect("a component's path has a directory");
    let write = || {
        fs::create_dir_all(parent)?;
        let mut file = tempfile::NamedTempFile::new_in(parent)?;
        file.write_all(component)?;
        file.persist(&path).map_err(|error| error.error)
    };
    write().map_err(|error| Failure::new(format!("cannot write {}: {error}", path.display())))?;
    Ok(path)
}
