//! Words that must not stand in Rust code, or only in some places.

use crate::finding::Finding;
use crate::rust_code::RustCode;

/// Endings that say nothing about a type.
const EMPTY_SUFFIXES: [&str; 8] =
    ["Manager", "Helper", "Util", "Utils", "Processor", "Data", "Impl", "Common"];
/// Module names that say nothing about what is inside.
const EMPTY_MODULES: [&str; 7] = ["util", "utils", "helper", "helpers", "common", "misc", "manager"];
/// Where `unsafe` may stand: the runtime, and what is compiled for wasm.
const UNSAFE_ALLOWED_IN: [&str; 3] = ["runtime/", "guest-sdk/", "tests/guests/"];
/// Fewer words than this are no sentence.
const TEST_NAME_WORDS_MIN: usize = 3;

/// Types and modules are named after what they are.
#[must_use]
pub fn names_say_something(code: &RustCode) -> Vec<Finding> {
    let mut findings = Vec::new();
    let remedy = "name it after what it is, in the words of GLOSSARY.md";
    let mut previous = "";
    for (number, word) in code.words() {
        if ["struct", "enum", "trait", "union"].contains(&previous)
            && let Some(suffix) = EMPTY_SUFFIXES.iter().find(|suffix| word.ends_with(**suffix))
        {
            let what = format!("`{word}` ends in `{suffix}`, which says nothing");
            findings.push(Finding::new(&code.file.path, number, what, remedy));
        }
        if previous == "mod" && EMPTY_MODULES.contains(&word) {
            let what = format!("a module called `{word}` says nothing");
            findings.push(Finding::new(&code.file.path, number, what, remedy));
        }
        previous = word;
    }
    findings
}

/// `unsafe` stands in the runtime only.
#[must_use]
pub fn unsafe_is_only_in_the_runtime(code: &RustCode) -> Vec<Finding> {
    if UNSAFE_ALLOWED_IN.iter().any(|folder| code.file.path.starts_with(folder)) {
        return Vec::new();
    }
    let places = code.words().filter(|(_, word)| *word == "unsafe" || *word == "unsafe_code");
    places
        .map(|(number, word)| {
            let what = format!("`{word}` outside the runtime");
            Finding::new(
                &code.file.path,
                number,
                what,
                "use a safe interface, or move it to runtime/ with its SAFETY reason",
            )
        })
        .collect()
}

/// Nothing is left to be written later, and no test is switched off.
#[must_use]
pub fn nothing_is_left_out(code: &RustCode) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (number, line) in code.lines() {
        for word in ["todo!", "unimplemented!"] {
            if line.contains(word) {
                let what = format!("`{word}` promises code that is not there");
                findings.push(Finding::new(
                    &code.file.path,
                    number,
                    what,
                    "write it, or refuse with a typed error",
                ));
            }
        }
        if line.contains("#[ignore") {
            findings.push(Finding::new(
                &code.file.path,
                number,
                "a test is switched off",
                "make it pass or delete it; a long one looks at HVM_LONG",
            ));
        }
    }
    findings
}

/// A test's name tells what holds when it passes.
#[must_use]
pub fn test_names_are_sentences(code: &RustCode) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut expects_name = false;
    for (number, line) in code.lines() {
        let line = line.trim_start();
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            expects_name = true;
        } else if expects_name && let Some((_, after)) = line.split_once("fn ") {
            expects_name = false;
            let name = after.split('(').next().unwrap_or("");
            if name.split('_').filter(|word| !word.is_empty()).count() < TEST_NAME_WORDS_MIN {
                let what = format!("`{name}` is no sentence");
                let remedy = "say what holds: `drain_moves_every_replica_off_the_host`";
                findings.push(Finding::new(&code.file.path, number, what, remedy));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkout::TextFile;

    fn findings(path: &str, text: &str, rule: fn(&RustCode) -> Vec<Finding>) -> Vec<usize> {
        let file = TextFile::example(path, text);
        rule(&RustCode::new(&file)).iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn a_name_that_says_nothing_is_found() {
        let text =
            "pub struct TaskManager;\nstruct Metadata;\nenum UserData { A }\nmod util;\nmod utility;\n";
        assert_eq!(findings("a/src/b.rs", text, names_say_something), [1, 3, 4]);
    }

    #[test]
    fn unsafe_is_found_outside_the_runtime_even_when_it_is_only_allowed() {
        let text = "// unsafe\nfn a() { unsafe { b() } }\n#![allow(unsafe_code)]\nlet s = \"unsafe\";\n";
        assert_eq!(findings("agent/src/b.rs", text, unsafe_is_only_in_the_runtime), [2, 3]);
        assert!(findings("runtime/src/b.rs", text, unsafe_is_only_in_the_runtime).is_empty());
    }

    #[test]
    fn code_that_is_promised_and_tests_that_are_off_are_found() {
        let text = "// todo!()\nfn a() { todo!() }\nfn b() { unimplemented!(\"\") }\n#[ignore = \"slow\"]\n";
        assert_eq!(findings("a/src/b.rs", text, nothing_is_left_out), [2, 3, 4]);
    }

    #[test]
    fn a_test_name_that_is_no_sentence_is_found() {
        let text = "#[test]\nfn works() {}\n#[tokio::test]\nasync fn a_write_survives() {}\nfn helper() {}\n";
        assert_eq!(findings("a/src/b.rs", text, test_names_are_sentences), [2]);
    }
}
