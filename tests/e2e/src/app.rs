//! Images and deployment files for the stories, made with the author's program.

use std::fs;
use std::path::{Path, PathBuf};

use guests_path::Guest;

use crate::program::run;

/// A folder with a signing key, where images and deployment files are made.
pub struct Workshop {
    folder: tempfile::TempDir,
}

/// An app to be packed.
pub struct App<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its one package.
    pub package: &'a str,
    /// Its version.
    pub version: &'a str,
    /// Its component.
    pub component: PathBuf,
    /// The capabilities its manifest requests.
    pub capabilities: &'a [&'a str],
}

impl Workshop {
    /// An empty one with a key.
    ///
    /// # Panics
    /// Where no key can be made.
    #[must_use]
    pub fn new() -> Self {
        let workshop = Self { folder: tempfile::tempdir().expect("a folder") };
        let key = workshop.path("author");
        let _ = run("appimage-tool", &[&"keygen", &"--out", &key], &[]).success();
        workshop
    }

    /// A path in it.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The public key that hosts are to trust.
    #[must_use]
    pub fn trust(&self) -> PathBuf {
        self.path("author.pub")
    }

    /// Packs an app, unsigned, as `NAME-VERSION.aimg`.
    ///
    /// # Panics
    /// Where it can't be packed.
    #[must_use]
    pub fn pack(&self, app: &App<'_>) -> PathBuf {
        self.pack_with(app, "")
    }

    /// The same with further lines in the manifest's table `[app]`.
    fn pack_with(&self, app: &App<'_>, lines: &str) -> PathBuf {
        let source = self.path(&format!("{}-{}", app.name, app.version));
        fs::create_dir_all(&source).expect("a folder for the manifest");
        fs::copy(&app.component, source.join("component.wasm")).expect("the component is there");
        let manifest = format!(
            "[app]\nname = \"{}\"\nversion = \"{}\"\n{lines}\n[[package]]\nname = \"{}\"\n\
             component = \"component.wasm\"\ncapabilities = {:?}\n",
            app.name, app.version, app.package, app.capabilities
        );
        fs::write(source.join("appimage.toml"), manifest).expect("a manifest");
        let image = self.path(&format!("{}-{}.aimg", app.name, app.version));
        let _ = run("appimage-tool", &[&"pack", &source, &"--out", &image], &[]).success();
        image
    }

    /// Signs an image with the workshop's key.
    ///
    /// # Panics
    /// Where it can't be signed.
    pub fn sign(&self, image: &Path) {
        let _ = run("appimage-tool", &[&"sign", &image, &"--key", &self.path("author")], &[]).success();
    }

    /// Packs and signs an app.
    #[must_use]
    pub fn build(&self, app: &App<'_>) -> PathBuf {
        self.build_with(app, "")
    }

    /// The same with further lines in the manifest's table `[app]`.
    #[must_use]
    pub fn build_with(&self, app: &App<'_>, lines: &str) -> PathBuf {
        let image = self.pack_with(app, lines);
        self.sign(&image);
        image
    }

    /// Packs and signs the example `ledger`; returns the deployment file that it comes with.
    ///
    /// # Panics
    /// Where it can't be packed.
    #[must_use]
    pub fn ledger(&self) -> PathBuf {
        let _ = self.build(&App {
            name: "ledger",
            package: "books",
            version: "1.0.0",
            component: Guest::Ledger.component(),
            capabilities: &["keyvalue"],
        });
        self.write("ledger.yaml", include_str!("../../../examples/ledger/ledger.yaml"))
    }

    /// Writes a deployment file.
    ///
    /// # Panics
    /// Where it can't be written.
    #[must_use]
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).expect("a deployment file");
        path
    }
}

impl Default for Workshop {
    fn default() -> Self {
        Self::new()
    }
}
