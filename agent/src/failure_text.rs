//! An error with its causes as one line for a person.

use std::error::Error;

/// The error and what caused it, outermost first. A cause that the text before it already repeats is left out.
pub(crate) fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Layer {
        text: &'static str,
        source: Option<Box<Layer>>,
    }

    #[test]
    fn causes_follow_their_error_and_none_stands_twice() {
        let root = Layer { text: "disk full", source: None };
        let middle = Layer { text: "write x: disk full", source: Some(Box::new(root)) };
        let outer = Layer { text: "open d/g/0", source: Some(Box::new(middle)) };
        assert_eq!(with_causes(&outer), "open d/g/0: write x: disk full");
    }
}
