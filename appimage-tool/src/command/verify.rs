//! `appimage-tool verify`: what a host would decide.

use hvm_appimage::{TrustPolicy, UnverifiedImage, VerifyError, check_component};

use crate::arguments::Verify;
use crate::failure::Failure;

pub(crate) fn run(arguments: &Verify) -> Result<String, Failure> {
    let policy = TrustPolicy::load(&arguments.trust)?;
    let image = UnverifiedImage::open_file(&arguments.file).map_err(VerifyError::from);
    let image = image.and_then(|image| image.verify(&policy)).map_err(|error| {
        let hint = match &error {
            VerifyError::Unsigned => {
                Some(format!("appimage-tool sign {} --key KEY", arguments.file.display()))
            }
            VerifyError::Untrusted { .. } => Some(
                "the id of a key is what keygen printed; `inspect` shows who claims to have signed"
                    .to_owned(),
            ),
            _ => None,
        };
        let failure = Failure::from(error).in_file(&arguments.file);
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    })?;
    for (name, package) in &image.config().packages {
        check_component(&image.component(name)?, &package.capabilities)
            .map_err(|error| Failure::new(format!("no host will run package {name}: {error}")))?;
    }
    let config = image.config();
    let mut output = format!("{} {} is trusted\n{}\n", config.app, config.version, image.manifest_digest());
    for key in image.signers() {
        output += &format!("signed by key {key}\n");
    }
    Ok(output)
}
