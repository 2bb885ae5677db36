//! `appimage.toml`: what is accepted stays inside its directory and reads back the same after it was written.

use std::fmt::Write as _;
use std::path::{Component, Path};

use hvm_appimage::{AppManifest, ComponentSource, ManifestError};

pub(crate) fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let path = Path::new(AppManifest::FILE_NAME);
    match AppManifest::parse(path, text) {
        Ok(manifest) => {
            for package in &manifest.packages {
                let (ComponentSource::File(source) | ComponentSource::Build(source)) = &package.component;
                stays_inside(source);
                package.files.iter().for_each(|files| stays_inside(files));
            }
            let written = write(&manifest);
            let again = AppManifest::parse(path, &written).expect("what was written is accepted");
            assert_eq!(again, manifest, "a manifest changed by being written and read");
        }
        Err(ManifestError::Invalid(message)) => assert!(!message.is_empty(), "a refusal without a reason"),
        Err(error) => panic!("reading a text can't fail with {error:?}"),
    }
}

fn stays_inside(path: &Path) {
    let inside = |part| matches!(part, Component::Normal(_) | Component::CurDir);
    assert!(path.components().next().is_some() && path.components().all(inside), "{path:?} leads out");
}

fn write(manifest: &AppManifest) -> String {
    let quoted = |text: &str| toml::Value::from(text).to_string();
    let mut out = format!(
        "[app]\nname = {}\nversion = {}\nstate_schema = {}\n",
        quoted(manifest.app.as_str()),
        quoted(&manifest.version.to_string()),
        manifest.schema.version
    );
    if let Some(from) = manifest.schema.migrates_from {
        writeln!(out, "migrates_from = {from}").expect("a string takes everything");
    }
    for package in &manifest.packages {
        let (key, source) = match &package.component {
            ComponentSource::File(path) => ("component", path),
            ComponentSource::Build(path) => ("build", path),
        };
        let text = |path: &Path| quoted(path.to_str().expect("the path was read from text"));
        let capabilities: Vec<_> = package.capabilities.iter().map(|c| quoted(&c.to_string())).collect();
        let written = write!(
            out,
            "[[package]]\nname = {}\n{key} = {}\ncapabilities = [{}]\n",
            quoted(package.name.as_str()),
            text(source),
            capabilities.join(", ")
        );
        written.expect("a string takes everything");
        if let Some(files) = &package.files {
            writeln!(out, "files = {}", text(files)).expect("a string takes everything");
        }
    }
    out
}
