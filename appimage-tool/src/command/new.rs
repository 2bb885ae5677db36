//! `appimage-tool new`: a directory with a small app, which builds as it stands.

use std::fs;
use std::path::Path;

use hvm_types::AppName;

use crate::arguments::New;
use crate::failure::Failure;

/// Stands for the app's name in the template.
const NAME: &str = "APP-NAME";

const TEMPLATE: [(&str, &str); 6] = [
    ("appimage.toml", include_str!("../../template/appimage.toml")),
    ("Cargo.toml", include_str!("../../template/Cargo.toml.in")),
    ("src/lib.rs", include_str!("../../template/lib.rs")),
    ("deployment.yaml", include_str!("../../template/deployment.yaml")),
    ("README.md", include_str!("../../template/README.md.in")),
    (".gitignore", include_str!("../../template/gitignore")),
];

pub(crate) fn run(arguments: &New) -> Result<String, Failure> {
    let name: AppName = arguments.name.parse()?;
    let directory = Path::new(name.as_str());
    let failed = |error: std::io::Error| {
        Failure::new(format!("cannot make directory {}: {error}", directory.display()))
    };
    match fs::create_dir(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            let error = format!("{} is there already, and nothing in it was changed", directory.display());
            return Err(Failure::new(error).hint("choose another name, or remove it first"));
        }
        made => made.map_err(failed)?,
    }
    fs::create_dir(directory.join("src")).map_err(failed)?;
    for (file, text) in TEMPLATE {
        fs::write(directory.join(file), text.replace(NAME, name.as_str())).map_err(failed)?;
    }
    Ok(format!(
        "made {name}/ with a small app. Next:\n  appimage-tool build {name}\n  \
         appimage-tool pack {name} --out {name}-0.1.0.aimg\n"
    ))
}
