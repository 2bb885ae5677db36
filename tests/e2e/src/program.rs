//! The programs under test: where they are, and running one to its end.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Command;

/// What a finished program said.
#[derive(Debug)]
pub struct Output {
    /// Its exit code; -1 where a signal ended it.
    pub code: i32,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Output {
    /// Its standard output.
    ///
    /// # Panics
    /// Where it did not end with 0.
    #[must_use]
    pub fn success(self) -> String {
        assert_eq!(self.code, 0, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self.stdout
    }

    /// Its standard error.
    ///
    /// # Panics
    /// Where it did not end with 1: refused or failed.
    #[must_use]
    pub fn refusal(self) -> String {
        assert_eq!(self.code, 1, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        assert!(self.stderr.starts_with("error: "), "a refusal says so: {}", self.stderr);
        self.stderr
    }
}

/// One of the workspace's programs, built by the same cargo call as this test.
///
/// # Panics
/// Where it was not built.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the test's own path");
    let folder = test.ancestors().nth(2).expect("a test stands in target/PROFILE/deps");
    let path = folder.join(name);
    assert!(
        path.exists(),
        "{} is missing: build the whole workspace's tests, as ./test does",
        path.display()
    );
    path
}

/// Runs a program to its end.
///
/// # Panics
/// Where it can't be started.
#[must_use]
pub fn run(name: &str, arguments: &[&dyn AsRef<OsStr>], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(program(name));
    command.args(arguments).envs(environment.iter().copied()).env_remove("RUST_BACKTRACE");
    let output = command.output().unwrap_or_else(|error| panic!("can't start {name}: {error}"));
    Output {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
