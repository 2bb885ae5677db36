//! What a person gets when a command can't do its work: what is wrong, where, and what to do next.

use std::fmt::Display;

/// Why a command failed.
#[derive(Debug)]
pub(crate) struct Failure {
    problems: Vec<String>,
    hints: Vec<String>,
    /// The deployment file's text, for showing the lines that problems point at.
    source: Option<String>,
}

impl Failure {
    /// One problem.
    pub(crate) fn new(problem: impl Display) -> Self {
        Self { problems: vec![problem.to_string()], hints: Vec::new(), source: None }
    }

    /// Several problems; at least one.
    pub(crate) fn all(problems: Vec<String>) -> Self {
        Self { problems, hints: Vec::new(), source: None }
    }

    /// A problem with what is `shown`, such as a file.
    pub(crate) fn about(shown: &impl Display, error: impl std::error::Error) -> Self {
        Self::new(format!("{shown}: {}", Self::from(error).text()))
    }

    /// Problems found in `text`, each beginning with `file:line:column: `.
    pub(crate) fn in_file(problems: Vec<String>, text: &str) -> Self {
        Self { problems, hints: Vec::new(), source: Some(text.to_owned()) }
    }

    /// The problems in one line.
    pub(crate) fn text(&self) -> String {
        self.problems.join("; ")
    }

    /// Adds what to do next.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Display) -> Self {
        self.hints.push(hint.to_string());
        self
    }

    /// What a failed call to the server at `address` means.
    pub(crate) fn of_call(address: &str, status: &tonic::Status) -> Self {
        match status.code() {
            tonic::Code::Unavailable => Self::new(format!("{address} did not answer: {}", status.message()))
                .hint("is it running? start `hvm dev` or `hvm scheduler`, or name its address with --api"),
            tonic::Code::InvalidArgument | tonic::Code::FailedPrecondition => Self {
                problems: status.message().lines().map(str::to_owned).collect(),
                hints: Vec::new(),
                source: None,
            },
            _ => Self::new(status.message()),
        }
    }

    /// Shows where in `text` the problems are.
    #[must_use]
    pub(crate) fn with_source(mut self, text: &str) -> Self {
        self.source = Some(text.to_owned());
        self
    }

    /// Writes it to stderr.
    pub(crate) fn print(&self) {
        for problem in &self.problems {
            eprintln!("error: {problem}");
            if let Some((number, line, column)) =
                self.source.as_deref().and_then(|text| excerpt(problem, text))
            {
                let margin = number.to_string().len();
                eprintln!("{:margin$} |\n{number} | {line}\n{:margin$} | {:>column$}", "", "", "^");
            }
        }
        for hint in &self.hints {
            eprintln!("hint: {hint}");
        }
    }
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let cause_text = cause.to_string();
            if !text.contains(&cause_text) {
                text = format!("{text}: {cause_text}");
            }
            source = cause.source();
        }
        Self::new(text)
    }
}

/// The line that `problem` (`file:line:column: …`) points at: its number, its text, the column.
fn excerpt<'a>(problem: &str, text: &'a str) -> Option<(usize, &'a str, usize)> {
    let mut parts = problem.splitn(4, ':').skip(1);
    let number: usize = parts.next()?.parse().ok()?;
    let column: usize = parts.next()?.parse().ok()?;
    let line = text.lines().nth(number.checked_sub(1)?)?;
    Some((number, line, column.max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_shows_the_line_it_points_at() {
        let text = "deployment: a\nimage: b\n";
        assert_eq!(excerpt("x.yaml:2:8: image: `b` names no image", text), Some((2, "image: b", 8)));
        assert_eq!(excerpt("x.yaml:9:1: nothing there", text), None);
        assert_eq!(excerpt("no place at all", text), None);
    }
}
