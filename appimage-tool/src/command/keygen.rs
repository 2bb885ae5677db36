//! `appimage-tool keygen`: a key pair in two files.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use hvm_appimage::SigningKey;

use crate::arguments::Keygen;
use crate::failure::Failure;

pub(crate) fn run(arguments: &Keygen) -> Result<String, Failure> {
    let private = &arguments.out;
    let mut public = private.clone().into_os_string();
    public.push(".pub");
    let public = PathBuf::from(public);

    let key = SigningKey::generate(arguments.alg)?;
    // Both are made before either is written: no half of a pair stays behind an error of the usual kind.
    let mut private_file = create(private, 0o600)?;
    let mut public_file = create(&public, 0o644).inspect_err(|_| {
        let _ = std::fs::remove_file(private);
    })?;
    write(&mut private_file, private, &key.to_pem())?;
    write(&mut public_file, &public, &key.public().to_pem())?;
    Ok(format!(
        "wrote {} (keep it secret) and {}\nkey {}\n",
        private.display(),
        public.display(),
        key.public().id()
    ))
}

fn create(path: &Path, mode: u32) -> Result<File, Failure> {
    OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(|error| {
        let failure = Failure::new(format!("cannot make {}: {error}", path.display()));
        match error.kind() {
            io::ErrorKind::AlreadyExists => failure.hint("keys are never overwritten; choose another name"),
            _ => failure,
        }
    })
}

fn write(file: &mut File, path: &Path, text: &str) -> Result<(), Failure> {
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(|error| Failure::new(format!("cannot write {}: {error}", path.display())))
}
