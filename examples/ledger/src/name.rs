//! Names of books and accounts.

use hvm_guest::Response;

/// Longest name.
const LENGTH_MAX: usize = 64;

/// A name: letters, digits, `-` and `_`. So it can stand in a path and in a key without escaping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name(String);

impl Name {
    pub fn parse(what: &str, text: &str) -> Result<Self, Response> {
        let fits = (1..=LENGTH_MAX).contains(&text.len())
            && text.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_');
        if fits {
            return Ok(Self(text.to_owned()));
        }
        let shown: String = text.chars().take(LENGTH_MAX).collect();
        Err(Response::error(
            400,
            &format!("`{shown}` is no name of {what}: use 1 to {LENGTH_MAX} letters, digits, `-` and `_`"),
        ))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}
