//! The shape of Rust files: the opening, the length of files and functions, what a crate root may hold.

use crate::finding::Finding;
use crate::rust_code::{RustCode, item_end};

/// More lines than this outside tests, and a file has more than one subject.
const FILE_LINES_MAX: usize = 600;
/// A function fits a screen.
const FUNCTION_LINES_MAX: usize = 70;

/// Every file says first what it is for.
#[must_use]
pub fn opens_with_its_purpose(code: &RustCode) -> Vec<Finding> {
    let first = code.file.text.lines().next().unwrap_or("");
    if first.len() > "//! ".len() && first.starts_with("//! ") {
        return Vec::new();
    }
    vec![Finding::new(
        &code.file.path,
        1,
        "the file does not open with `//!`",
        "say in its first line what the file is for and what it does not do",
    )]
}

/// No file has more than 600 lines that are not tests.
#[must_use]
pub fn is_not_too_long(code: &RustCode) -> Vec<Finding> {
    let count = (1..=code.file.text.lines().count()).filter(|line| !code.is_test_line(*line)).count();
    if count <= FILE_LINES_MAX {
        return Vec::new();
    }
    let what = format!("{count} lines without the tests, the limit is {FILE_LINES_MAX}");
    vec![Finding::new(&code.file.path, 1, what, "split the file by subject")]
}

/// No function outside tests has more than 70 lines, signature and closing brace counted.
#[must_use]
pub fn functions_fit_a_screen(code: &RustCode) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut at = 0;
    for (number, line) in code.lines() {
        if let Some(name) = function_name(line)
            && !code.is_test_line(number)
        {
            let lines = code.line_of(item_end(&code.code, at)) - number + 1;
            if lines > FUNCTION_LINES_MAX {
                let what = format!("`{name}` has {lines} lines, the limit is {FUNCTION_LINES_MAX}");
                findings.push(Finding::new(
                    &code.file.path,
                    number,
                    what,
                    "move a part with a name out of it",
                ));
            }
        }
        at += line.len() + 1;
    }
    findings
}

/// The name of the function that starts on this line.
fn function_name(line: &str) -> Option<&str> {
    let (before, after) = line.split_once("fn ")?;
    let is_head = before.split_whitespace().all(|word| {
        word.starts_with("pub") || ["const", "async", "unsafe", "extern", "default"].contains(&word)
    });
    let name = after.split(|c: char| !c.is_alphanumeric() && c != '_').next()?;
    (is_head && !name.is_empty()).then_some(name)
}

/// `lib.rs` and `mod.rs` of the product hold documentation, `mod` and `pub use`, nothing else.
#[must_use]
pub fn crate_roots_only_name_modules(code: &RustCode) -> Vec<Finding> {
    let path = &code.file.path;
    let is_root = path.ends_with("/src/lib.rs") || path.ends_with("/mod.rs");
    let is_guest_program = path.starts_with("examples/"); // its lib.rs is the whole program
    if !is_root || is_guest_program || code.is_test_file() {
        return Vec::new();
    }
    let others: Vec<Item> =
        items(&code.code).into_iter().filter(|item| !item.is_free && !names_modules(&item.text)).collect();
    let Some(first) = others.first() else { return Vec::new() };
    let head = first.text.lines().next().unwrap_or("").trim_end_matches('{').trim();
    let what = match others.len() {
        1 => format!("`{head}` stands in a file that only names modules"),
        count => format!("`{head}` and {} more items stand in a file that only names modules", count - 1),
    };
    vec![Finding::new(
        path,
        code.line_of(first.at),
        what,
        "move what is no `mod` or `pub use` to a module of its own",
    )]
}

struct Item {
    at: usize,
    text: String,
    /// Only there for tests or documentation.
    is_free: bool,
}

/// The items at the top level of a file, without their attributes.
fn items(code: &str) -> Vec<Item> {
    let mut found = Vec::new();
    let mut at = 0;
    let mut is_free = false;
    loop {
        at += code[at..].len() - code[at..].trim_start().len();
        if at >= code.len() {
            return found;
        }
        if code[at..].starts_with('#') {
            let end = attribute_end(code, at);
            is_free |= ["cfg(test", "cfg(doc"].iter().any(|cfg| code[at..end].contains(cfg));
            at = end;
            continue;
        }
        let is_use = code[at..]
            .split('{')
            .next()
            .is_some_and(|head| head.split_whitespace().any(|word| word == "use"));
        let end = match code[at..].find(';') {
            Some(length) if is_use => at + length + 1,
            _ => item_end(code, at),
        };
        found.push(Item { at, text: code[at..end].to_owned(), is_free });
        is_free = false;
        at = end;
    }
}

fn attribute_end(code: &str, from: usize) -> usize {
    let mut depth = 0_usize;
    for (at, c) in code[from..].char_indices() {
        match c {
            '[' => depth += 1,
            ']' if depth <= 1 => return from + at + 1,
            ']' => depth -= 1,
            _ => {}
        }
    }
    code.len()
}

fn names_modules(item: &str) -> bool {
    let rest = item.strip_prefix("pub").map_or(item, |rest| {
        let rest = rest.trim_start();
        rest.strip_prefix('(').and_then(|inner| inner.split_once(')')).map_or(rest, |(_, after)| after)
    });
    let is_public = rest.len() < item.len();
    let rest = rest.trim_start();
    (rest.starts_with("mod ") && rest.ends_with(';')) || (is_public && rest.starts_with("use "))
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
    fn a_file_without_a_purpose_is_found() {
        assert_eq!(findings("a/src/b.rs", "use a;\n", opens_with_its_purpose), [1]);
        assert_eq!(findings("a/src/b.rs", "//!\n", opens_with_its_purpose), [1]);
        assert!(findings("a/src/b.rs", "//! What it is for.\n", opens_with_its_purpose).is_empty());
    }

    #[test]
    fn only_lines_outside_tests_count_for_the_length_of_a_file() {
        let long = "// x\n".repeat(FILE_LINES_MAX + 1);
        assert_eq!(findings("a/src/b.rs", &long, is_not_too_long), [1]);
        assert!(findings("a/tests/b.rs", &long, is_not_too_long).is_empty());
        let tested = format!("fn a() {{}}\n#[cfg(test)]\nmod tests {{\n{long}}}\n");
        assert!(findings("a/src/b.rs", &tested, is_not_too_long).is_empty());
    }

    #[test]
    fn a_function_of_71_lines_is_found_and_one_of_70_is_not() {
        let function = |lines: usize| {
            format!(
                "\n    pub(crate) async fn a(x: [u8; 2]) {{\n{}    }}\nfn b() {{}}\n",
                "//\n".repeat(lines - 2)
            )
        };
        assert_eq!(findings("a/src/b.rs", &function(71), functions_fit_a_screen), [2]);
        assert!(findings("a/src/b.rs", &function(70), functions_fit_a_screen).is_empty());
    }

    #[test]
    fn a_crate_root_with_code_is_found() {
        let rule = crate_roots_only_name_modules;
        let root = "#![warn(x)]\nmod a;\npub(crate) mod b;\npub use a::{C, D};\n#[cfg(doc)]\nuse x;\n#[cfg(test)]\nmod tests { fn x() {} }\n";
        assert!(findings("a/src/lib.rs", root, rule).is_empty());
        assert_eq!(findings("a/src/lib.rs", "mod a;\nuse b;\npub fn c() { d; }\nmod e { }\n", rule), [2]);
        assert_eq!(findings("a/src/x/mod.rs", "mod a;\n\nmod e { }\n", rule), [3]);
        assert!(findings("a/src/main.rs", "fn main() {}\n", rule).is_empty());
        assert!(findings("examples/a/src/lib.rs", "fn handle() {}\n", rule).is_empty());
    }
}
