//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use hvm_appimage::KeyAlgorithm;
use hvm_types::PackageName;

/// Build, pack, sign and look at AppImages: whole apps of WebAssembly components in one signed file.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, after_help = FIRST_STEPS)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

const FIRST_STEPS: &str = "\
From nothing to a signed app:
  appimage-tool new hello                          # a directory with a small app in Rust
  appimage-tool build hello                        # source to component
  appimage-tool pack hello --out hello.aimg        # component to image
  appimage-tool keygen --out author                # once: author (keep it secret) and author.pub
  appimage-tool sign hello.aimg --key author
  appimage-tool verify hello.aimg --trust author.pub
  appimage-tool run hello.aimg --listen 127.0.0.1:8080

Exit codes: 0 done, 1 refused or failed, 2 wrong usage.";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start an app: make a directory with a small one in Rust
    New(New),
    /// Build the packages of an app that are made from source
    Build(Build),
    /// Pack an app's components and files into an image
    Pack(Pack),
    /// Make a key pair for signing
    Keygen(Keygen),
    /// Sign an image; signatures by other keys stay
    Sign(Sign),
    /// Check an image as a host would before it runs it
    Verify(Verify),
    /// Show what is in an image
    Inspect(Inspect),
    /// Serve one package of an image on this machine, without an agent
    Run(Run),
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  appimage-tool new hello

Makes ./hello with appimage.toml, a Rust crate and a deployment file. The name is the app's: 1 to 63 of the \
characters a-z, 0-9 and `-`. An existing directory is left alone.")]
pub(crate) struct New {
    /// The app's name, and the directory to make
    pub(crate) name: String,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  appimage-tool build                  # the app in this directory
  appimage-tool build examples/hello

Builds every package of DIR/appimage.toml that has `build = \"…\"`, the directory of a Rust crate, and puts the \
component into DIR/target/appimage/. The first build on a machine prepares a Rust toolchain for WebAssembly: by \
rustup where that can download, otherwise from Debian packages into the cache (about two minutes, 1 GB).

Components made otherwise (any language) are named with `component = \"file.wasm\"` and need no build.")]
pub(crate) struct Build {
    /// The app's directory, which holds appimage.toml
    #[arg(default_value = ".")]
    pub(crate) dir: PathBuf,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  appimage-tool pack hello --out hello-1.0.0.aimg

Builds nothing. The same input gives the same bytes, so the same digest. A component that imports more than WASI 0.2 \
and the capabilities of its package is refused, by the name of the import.

The smallest appimage.toml:
  [app]
  name = \"hello\"
  version = \"1.0.0\"

  [[package]]
  name = \"web\"
  component = \"hello.wasm\"           # or build = \"directory of a Rust crate\"
  capabilities = [\"keyvalue\"]        # default none; keyvalue, config, logging, outgoing-http
  files = \"static\"                   # default none; a directory of static files")]
pub(crate) struct Pack {
    /// The app's directory, which holds appimage.toml
    pub(crate) dir: PathBuf,
    /// The image to write; hosts expect a name that ends in .aimg
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  appimage-tool keygen --out author

Writes the private key to `author` (PKCS#8 PEM, mode 0600) and the public key to `author.pub` (SPKI PEM). Never \
overwrites a file. The private key is not encrypted: keep it where only you can read it.")]
pub(crate) struct Keygen {
    /// Where the private key goes; the public key goes beside it, with `.pub` added
    #[arg(long, value_name = "KEY")]
    pub(crate) out: PathBuf,
    /// Kind of key: ecdsa-p256 or ed25519
    #[arg(long, value_name = "ALGORITHM", default_value_t)]
    pub(crate) alg: KeyAlgorithm,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  appimage-tool sign hello-1.0.0.aimg --key author

Adds a Sigstore bundle over the image's digest to the file. The digest does not change, and signing twice with the \
same key changes nothing.")]
pub(crate) struct Sign {
    /// The image
    pub(crate) file: PathBuf,
    /// The private key, as keygen made it
    #[arg(long)]
    pub(crate) key: PathBuf,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  appimage-tool verify hello-1.0.0.aimg --trust author.pub
  appimage-tool verify hello-1.0.0.aimg --trust trust.toml

A trust policy is a TOML file:
  threshold = 1                        # signatures by different keys that an image needs
  revoked = [\"5f0c…\"]                  # ids of keys that count no more

  [[key]]
  file = \"author.pub\"                 # or pem = \"\"\"…\"\"\"
  apps = [\"hello\", \"team-*\"]          # apps it may sign

  [lowest]
  hello = \"1.0.0\"                     # older versions are refused")]
pub(crate) struct Verify {
    /// The image
    pub(crate) file: PathBuf,
    /// A public key, which is trusted for every app, or a trust policy
    #[arg(long, value_name = "KEY.pub|POLICY.toml")]
    pub(crate) trust: PathBuf,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  appimage-tool inspect hello-1.0.0.aimg
  appimage-tool inspect hello-1.0.0.aimg --json | jq .packages

Checks every digest, and shows who claims to have signed; `verify` says whether that is true.")]
pub(crate) struct Inspect {
    /// The image
    pub(crate) file: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  appimage-tool run hello-1.0.0.aimg --listen 127.0.0.1:8080
  appimage-tool run ledger-1.0.0.aimg --listen 127.0.0.1:8080 --data ./state --env CURRENCY=EUR

One partition answers every request, in the same HVM that hosts use and with the default limits. It is granted what \
the package requests; origins for outgoing HTTP have to be named. Digests are always checked, signatures where \
--trust is given. Stop it with Ctrl-C: requests under way are finished.")]
pub(crate) struct Run {
    /// The image
    pub(crate) file: PathBuf,
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    pub(crate) listen: SocketAddr,
    /// Run it only if it is signed: a public key or a trust policy, as for verify
    #[arg(long, value_name = "KEY.pub|POLICY.toml")]
    pub(crate) trust: Option<PathBuf>,
    /// The package to run; may be left out where the image has only one
    #[arg(long)]
    pub(crate) package: Option<PackageName>,
    /// A value that the guest reads as configuration and in its environment; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_and_value)]
    pub(crate) env: Vec<(String, String)>,
    /// Where durable state is kept; without it, in a directory that goes when the program ends
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// An origin that the guest may call, such as `https://rates.example`; may be repeated
    #[arg(long, value_name = "ORIGIN")]
    pub(crate) http: Vec<String>,
    /// Let commands call those origins too: a repeated command repeats its calls
    #[arg(long)]
    pub(crate) http_in_commands: bool,
}

fn key_and_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write KEY=VALUE".to_owned()),
    }
}
