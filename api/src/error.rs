//! What kind of failure crosses a process boundary, and its text: lines for a person, one per problem.

use std::fmt;

use tonic::{Code, Status};

use crate::limit::FAILURE_MAX_BYTES;

/// What the caller can do about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The request is wrong: change it.
    Invalid,
    /// What it names is not there.
    NotFound,
    /// It lost a race, or stands against what is there now: read again, then decide.
    Conflict,
    /// A newer owner took over: stop.
    Fenced,
    /// Not now: try again later.
    Unavailable,
    /// Stored or sent bytes are damaged: restore them.
    Corrupt,
    /// A fault of this program: report it.
    Internal,
}

impl ErrorKind {
    /// The gRPC code that carries it.
    #[must_use]
    pub const fn code(self) -> Code {
        match self {
            Self::Invalid => Code::InvalidArgument,
            Self::NotFound => Code::NotFound,
            Self::Conflict => Code::Aborted,
            Self::Fenced => Code::FailedPrecondition,
            Self::Unavailable => Code::Unavailable,
            Self::Corrupt => Code::DataLoss,
            Self::Internal => Code::Internal,
        }
    }

    /// The kind that a gRPC code means. Codes that no service of ours sends come from the connection.
    #[must_use]
    pub const fn of_code(code: Code) -> Self {
        match code {
            Code::InvalidArgument | Code::OutOfRange | Code::Unimplemented => Self::Invalid,
            Code::NotFound => Self::NotFound,
            Code::Aborted | Code::AlreadyExists => Self::Conflict,
            Code::FailedPrecondition => Self::Fenced,
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::ResourceExhausted => {
                Self::Unavailable
            }
            Code::DataLoss => Self::Corrupt,
            _ => Self::Internal,
        }
    }
}

/// A failed call: its kind, and one line per problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What the caller can do.
    pub kind: ErrorKind,
    /// What is wrong, where, and what to do; at least one.
    pub lines: Vec<String>,
}

impl Failure {
    /// A failure with one problem.
    pub fn new(kind: ErrorKind, line: impl fmt::Display) -> Self {
        Self { kind, lines: vec![line.to_string()] }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines.join("; "))
    }
}

impl std::error::Error for Failure {}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Self {
        Self::new(failure.kind.code(), bounded_text(&failure.lines))
    }
}

impl From<&Status> for Failure {
    fn from(status: &Status) -> Self {
        let kind = ErrorKind::of_code(status.code());
        Self { kind, lines: status.message().lines().map(str::to_owned).collect() }
    }
}

/// As many lines as may travel, then how many more there are.
fn bounded_text(lines: &[String]) -> String {
    let mut text = String::new();
    for (i, line) in lines.iter().enumerate() {
        // A line of its own must not break the text into problems that are none.
        let line: String = line.chars().map(|c| if c == '\n' { ' ' } else { c }).collect();
        if text.len() + line.len() >= FAILURE_MAX_BYTES {
            if i == 0 {
                text.extend(line.chars().take(FAILURE_MAX_BYTES / 4));
            }
            text.push_str(&format!("\nand {} more", lines.len() - i.max(1)));
            break;
        }
        if i > 0 {
            text.push('\n');
        }
        text.push_str(&line);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_survives_the_wire() {
        use ErrorKind::*;
        for kind in [Invalid, NotFound, Conflict, Fenced, Unavailable, Corrupt, Internal] {
            let failure = Failure { kind, lines: vec!["one".to_owned(), "two".to_owned()] };
            assert_eq!(Failure::from(&Status::from(failure.clone())), failure);
        }
    }

    #[test]
    fn a_thousand_problems_still_fit_a_header() {
        let lines = (0..1000).map(|i| format!("x.yaml:{i}:1: field: it is wrong")).collect();
        let status = Status::from(Failure { kind: ErrorKind::Invalid, lines });
        assert!(status.message().len() <= FAILURE_MAX_BYTES + 32);
        assert!(status.message().ends_with("more"), "{}", status.message());
        let one = Failure::new(ErrorKind::Invalid, "x".repeat(1 << 20));
        assert!(Status::from(one).message().len() <= FAILURE_MAX_BYTES + 32);
    }
}
