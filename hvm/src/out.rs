//! Writing to stdout. Whoever closes it early, as `head` does, has read enough: that is no failure.

use std::fmt::Display;
use std::io::{ErrorKind, Write as _};

/// Writes a line of a listing. Where nobody reads any more, nothing is left to do, and the program ends.
pub(crate) fn line(text: impl Display) {
    let Err(error) = writeln!(std::io::stdout(), "{text}") else { return };
    if error.kind() == ErrorKind::BrokenPipe {
        std::process::exit(0);
    }
    eprintln!("error: can't write to stdout: {error}");
    std::process::exit(1);
}

/// Writes a line about what is being done, which goes on whether somebody reads it or not.
pub(crate) fn note(text: impl Display) {
    let _ = writeln!(std::io::stdout(), "{text}");
}
