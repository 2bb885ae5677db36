//! JSON from untrusted bytes: its nesting is bounded before anything parses it.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::limit::MAX_JSON_LEVELS;
use crate::read_error::ReadError;

/// Parses a document whose size the caller has bounded. `what` names it in errors.
pub(crate) fn parse<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, ReadError> {
    let invalid = |reason: String| ReadError::Document { what: what.to_owned(), reason };
    let levels = deepest_level(bytes);
    if levels > MAX_JSON_LEVELS {
        return Err(invalid(format!("it nests more than {MAX_JSON_LEVELS} levels deep")));
    }
    serde_json::from_slice(bytes).map_err(|error| invalid(error.to_string()))
}

/// The bytes of a document that we write: compact, fields in the order of the struct.
pub(crate) fn encode(document: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(document).expect("our documents have string keys and no failing serializers")
}

/// Counts brackets outside strings. Where the bytes are no JSON the count means nothing, and the parser
/// that comes next refuses them.
fn deepest_level(bytes: &[u8]) -> usize {
    let (mut level, mut deepest) = (0_usize, 0);
    let (mut in_string, mut escaped) = (false, false);
    for byte in bytes {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                level += 1;
                deepest = deepest.max(level);
            }
            b']' | b'}' if !in_string => level = level.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nesting_is_refused_one_level_beyond_the_limit() {
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        let parse = |text: String| parse::<serde_json::Value>("test", text.as_bytes());
        parse(nested(MAX_JSON_LEVELS)).expect("64 levels are allowed");
        let error = parse(nested(MAX_JSON_LEVELS + 1)).expect_err("65 levels are not");
        assert!(error.to_string().contains("more than 64 levels"), "{error}");
        parse(nested(1_000_000)).expect_err("and a million must not overflow the stack");
    }

    #[test]
    fn brackets_in_strings_are_no_nesting() {
        let text = format!("\"{}\\\"{}\"", "[".repeat(100), "{".repeat(100));
        parse::<serde_json::Value>("test", text.as_bytes()).expect("a string is one level");
    }
}
