//! A directory in which the tool is run, and what must come of it.

use std::fs;
use std::process::{Command, Output};

use guests_path::Guest;
use tempfile::TempDir;

/// A directory to work in.
pub(crate) struct Workbench(TempDir);

impl Workbench {
    pub(crate) fn new() -> Self {
        Self(TempDir::new().expect("a temporary directory"))
    }

    pub(crate) fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a directory")).expect("a writable directory");
        fs::write(path, content).expect("a writable directory");
    }

    pub(crate) fn tool(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_appimage-tool"));
        command.args(arguments).current_dir(self.0.path()).output().expect("the tool starts")
    }

    /// Runs the tool, which must succeed; returns standard output.
    pub(crate) fn done(&self, arguments: &[&str]) -> String {
        let output = self.tool(arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {error}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// Runs the tool, which must fail as a refused command does; returns standard error.
    pub(crate) fn refused(&self, arguments: &[&str]) -> String {
        let output = self.tool(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?} was not refused");
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            "",
            "a refusal prints nothing to standard output"
        );
        let error = String::from_utf8(output.stderr).expect("UTF-8");
        assert!(error.lines().any(|line| line.starts_with("error: ")), "{error}");
        error
    }

    /// An app with one package, whose component is this guest.
    pub(crate) fn app(&self, directory: &str, guest: Guest, capabilities: &str) {
        self.write(
            &format!("{directory}/appimage.toml"),
            format!(
                "[app]\nname = \"{directory}\"\nversion = \"1.0.0\"\n\n[[package]]\nname = \"web\"\n\
                 component = \"web.wasm\"\ncapabilities = {capabilities}\n"
            ),
        );
        self.write(&format!("{directory}/web.wasm"), fs::read(guest.component()).expect("a built guest"));
    }

    /// Packs `hello` and signs it with a new key `author`.
    pub(crate) fn signed_hello(&self) {
        self.app("hello", Guest::Hello, "[]");
        self.done(&["pack", "hello", "--out", "hello.aimg"]);
        self.done(&["keygen", "--out", "author"]);
        self.done(&["sign", "hello.aimg", "--key", "author"]);
    }
}
