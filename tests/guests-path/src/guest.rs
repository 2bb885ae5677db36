//! The guests by name, and their files.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// Every guest there is. A test file that shall use all of them matches on this, so that a new guest which no test runs
/// does not compile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guest {
    /// `examples/hello`: needs no capability.
    Hello,
    /// `examples/flightboard`, version 1.0.0.
    Flightboard,
    /// `examples/flightboard/next`, version 1.1.0: answers `GET /airports/{code}/top` too.
    FlightboardNext,
    /// `examples/ledger`.
    Ledger,
    /// `examples/counter`: handles typed calls only.
    Counter,
    /// `tests/guests/probe`: does what its path says; needs every capability.
    Probe,
    /// `tests/guests/probe-wasi`: std over WASI; needs no capability.
    ProbeWasi,
    /// `tests/guests/bad-import`: imports what no host offers.
    BadImport,
    /// `tests/guests/typed`: handles typed calls only; needs `keyvalue`.
    Typed,
    /// `tests/guests/typed/both`: without state, and handles HTTP requests too; needs no capability.
    TypedBoth,
}

impl Guest {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Hello,
        Self::Flightboard,
        Self::FlightboardNext,
        Self::Ledger,
        Self::Counter,
        Self::Probe,
        Self::ProbeWasi,
        Self::BadImport,
        Self::Typed,
        Self::TypedBoth,
    ];

    /// The file's name without its ending.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hello => "hello",
            Self::Flightboard => "flightboard",
            Self::FlightboardNext => "flightboard-next",
            Self::Ledger => "ledger",
            Self::Counter => "counter",
            Self::Probe => "probe",
            Self::ProbeWasi => "probe-wasi",
            Self::BadImport => "bad-import",
            Self::Typed => "typed",
            Self::TypedBoth => "typed-both",
        }
    }

    /// The component's file.
    ///
    /// # Panics
    /// The guests can't be built; the reason is on standard error.
    #[must_use]
    pub fn component(self) -> PathBuf {
        guests_dir().join(self.name()).with_extension("wasm")
    }
}

/// The component's file of the guest with this name.
///
/// # Panics
/// There is no such guest, or the guests can't be built; the reason is on standard error.
#[must_use]
pub fn component(name: &str) -> PathBuf {
    let guest = Guest::ALL.into_iter().find(|guest| guest.name() == name);
    guest.unwrap_or_else(|| panic!("there is no guest `{name}`: see Guest in tests/guests-path")).component()
}

fn guests_dir() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| std::env::var_os("HVM_GUESTS").map_or_else(build, PathBuf::from))
}

fn build() -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../guests/build");
    let output = Command::new(&script)
        .stderr(Stdio::inherit())
        .output()
        .unwrap_or_else(|error| panic!("{} does not start: {error}", script.display()));
    assert!(output.status.success(), "{} failed, see its messages", script.display());
    PathBuf::from(String::from_utf8(output.stdout).expect("the script prints a path in UTF-8").trim_end())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::Guest;

    /// What a component, and no core module, begins with.
    const COMPONENT_HEADER: [u8; 8] = [0, b'a', b's', b'm', 0x0d, 0, 1, 0];

    #[test]
    fn every_guest_that_is_built_is_named_here_and_is_a_component() {
        let dir = Guest::Hello.component().parent().expect("a file in a directory").to_owned();
        let built: BTreeSet<String> = std::fs::read_dir(dir)
            .expect("the directory of guests")
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        let named = Guest::ALL.iter().map(|guest| format!("{}.wasm", guest.name())).collect();
        assert_eq!(built, named);
        for guest in Guest::ALL {
            let bytes = std::fs::read(guest.component()).expect("the component");
            assert_eq!(bytes[..8], COMPONENT_HEADER, "{}", guest.name());
        }
    }
}
