//! `appimage-tool sign`: adds a signature to an image.

use hvm_appimage::{KeyError, SigningKey, sign_file};

use crate::arguments::Sign;
use crate::failure::Failure;

pub(crate) fn run(arguments: &Sign) -> Result<String, Failure> {
    let path = arguments.key.display();
    let pem = std::fs::read_to_string(&arguments.key)
        .map_err(|error| Failure::new(format!("cannot read the key {path}: {error}")))?;
    let key = SigningKey::from_pem(&pem).map_err(|error: KeyError| {
        Failure::new(format!("cannot sign with {path}: {error}"))
            .hint("sign with the private key, the one of keygen's two files without `.pub`")
    })?;
    let outcome =
        sign_file(&arguments.file, &key).map_err(|error| Failure::from(error).in_file(&arguments.file))?;
    let what = if outcome.already_signed { "was already signed" } else { "signed" };
    let signatures = match outcome.signatures {
        1 => "1 signature".to_owned(),
        several => format!("{several} signatures"),
    };
    Ok(format!(
        "{} {what} by key {}\n{} ({signatures})\n",
        arguments.file.display(),
        outcome.key,
        outcome.manifest
    ))
}
