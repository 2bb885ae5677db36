//! `appimage-tool pack`: an app's directory to an image.

use hvm_appimage::{ManifestError, PackError, pack_directory};

use super::size_text::size_text;
use crate::arguments::Pack;
use crate::failure::Failure;

pub(crate) fn run(arguments: &Pack) -> Result<String, Failure> {
    let out = &arguments.out;
    let digest = pack_directory(&arguments.dir, out).map_err(|error| {
        let hint = match &error {
            PackError::Manifest(ManifestError::Missing { .. }) => {
                Some("`appimage-tool new NAME` makes an app to start from".to_owned())
            }
            PackError::NotBuilt { .. } | PackError::Stale { .. } => {
                Some(format!("appimage-tool build {}", arguments.dir.display()))
            }
            _ => None,
        };
        let failure = Failure::from(error);
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    })?;
    let size = std::fs::metadata(out).map_or(0, |metadata| metadata.len());
    Ok(format!("packed {} ({})\n{digest}\n", out.display(), size_text(size)))
}
