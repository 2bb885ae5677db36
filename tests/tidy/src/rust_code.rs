//! A Rust file with everything blanked that is not code, so that rules can look for words without being
//! fooled by comments and strings. It knows tokens, not grammar: enough for the rules, no parser.

use crate::checkout::TextFile;

/// A Rust source file, ready to be searched.
#[derive(Debug)]
pub struct RustCode<'a> {
    /// The file as written.
    pub file: &'a TextFile,
    /// The same lines; the inside of comments and literals is blank.
    pub code: String,
    /// For each line, whether it belongs to a `#[cfg(test)]` item.
    in_test_item: Vec<bool>,
}

impl<'a> RustCode<'a> {
    /// Prepares `file`.
    #[must_use]
    pub fn new(file: &'a TextFile) -> Self {
        let code = blank_what_is_no_code(&file.text);
        let in_test_item = test_lines(&code);
        Self { file, code, in_test_item }
    }

    /// Whether the whole file is a test, a bench or a guest that only tests run.
    #[must_use]
    pub fn is_test_file(&self) -> bool {
        let path = &self.file.path;
        path.split('/').any(|part| part == "tests" || part == "benches" || part == "tests.rs")
            || path.ends_with("_tests.rs")
    }

    /// Whether the line (from 1) stands in test code.
    #[must_use]
    pub fn is_test_line(&self, line: usize) -> bool {
        self.is_test_file() || self.in_test_item.get(line.wrapping_sub(1)).copied().unwrap_or(false)
    }

    /// Code lines with their numbers, from 1.
    pub fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code.lines().enumerate().map(|(index, line)| (index + 1, line))
    }

    /// Identifiers and keywords, with the number of their line.
    pub fn words(&self) -> impl Iterator<Item = (usize, &str)> {
        self.lines().flat_map(|(number, line)| {
            line.split(|c: char| !c.is_alphanumeric() && c != '_')
                .filter(|word| !word.is_empty())
                .map(move |word| (number, word))
        })
    }

    /// The number of the line that byte `at` of [`Self::code`] is on, from 1.
    #[must_use]
    pub fn line_of(&self, at: usize) -> usize {
        self.code[..at].matches('\n').count() + 1
    }
}

/// The end (exclusive) of the item that starts at byte `from`: after its `;`, or after the `}` that closes its
/// first `{`. Brackets and parentheses on the way are skipped whole.
#[must_use]
pub(crate) fn item_end(code: &str, from: usize) -> usize {
    let mut depth = 0_usize;
    let mut braces = 0_usize;
    for (at, c) in code[from..].char_indices() {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => depth = depth.saturating_sub(1),
            '{' => braces += 1,
            '}' => {
                braces = braces.saturating_sub(1);
                if braces == 0 && depth == 0 {
                    return from + at + 1;
                }
            }
            ';' if depth == 0 && braces == 0 => return from + at + 1,
            _ => {}
        }
    }
    code.len()
}

fn test_lines(code: &str) -> Vec<bool> {
    let mut marks = vec![false; code.lines().count()];
    for (at, _) in code.match_indices("#[cfg(") {
        let Some(close) = code[at..].find(']').map(|length| at + length + 1) else {
            continue;
        };
        if !code[at..close].split(|c: char| !c.is_alphanumeric()).any(|word| word == "test")
            || code[at..close].contains("not(")
        {
            continue;
        }
        let first = code[..at].matches('\n').count();
        let last = code[..item_end(code, close)].matches('\n').count();
        for mark in marks.iter_mut().take(last + 1).skip(first) {
            *mark = true;
        }
    }
    marks
}

/// What the next characters of the text belong to.
enum Mode {
    Code,
    LineComment,
    BlockComment { depth: usize },
    Text,
    RawText { hashes: usize },
}

fn blank_what_is_no_code(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut mode = Mode::Code;
    let mut at = 0;
    while at < chars.len() {
        let (next_mode, length) = step(&mode, &chars, at);
        let stays = matches!(mode, Mode::Code) && matches!(next_mode, Mode::Code);
        let is_literal = length > 1;
        for c in &chars[at..(at + length).min(chars.len())] {
            out.push(if *c == '\n' || (stays && !is_literal) { *c } else { ' ' });
        }
        mode = next_mode;
        at += length;
    }
    out
}

/// The mode after `at`, and how many characters that takes.
fn step(mode: &Mode, chars: &[char], at: usize) -> (Mode, usize) {
    let here = |offset: usize| chars.get(at + offset).copied().unwrap_or('\0');
    match *mode {
        Mode::Code => step_in_code(chars, at),
        Mode::LineComment if here(0) == '\n' => (Mode::Code, 1),
        Mode::LineComment => (Mode::LineComment, 1),
        Mode::BlockComment { depth } => match (here(0), here(1)) {
            ('*', '/') if depth == 1 => (Mode::Code, 2),
            ('*', '/') => (Mode::BlockComment { depth: depth - 1 }, 2),
            ('/', '*') => (Mode::BlockComment { depth: depth + 1 }, 2),
            _ => (Mode::BlockComment { depth }, 1),
        },
        Mode::Text => match here(0) {
            '\\' => (Mode::Text, 2),
            '"' => (Mode::Code, 1),
            _ => (Mode::Text, 1),
        },
        Mode::RawText { hashes } => {
            let closes = here(0) == '"' && (1..=hashes).all(|offset| here(offset) == '#');
            if closes { (Mode::Code, 1 + hashes) } else { (Mode::RawText { hashes }, 1) }
        }
    }
}

fn step_in_code(chars: &[char], at: usize) -> (Mode, usize) {
    let here = |offset: usize| chars.get(at + offset).copied().unwrap_or('\0');
    let starts_word = at == 0 || !(chars[at - 1].is_alphanumeric() || chars[at - 1] == '_');
    match (here(0), here(1)) {
        ('/', '/') => (Mode::LineComment, 2),
        ('/', '*') => (Mode::BlockComment { depth: 1 }, 2),
        ('"', _) => (Mode::Text, 1),
        ('\'', '\\') => {
            let close = chars[at + 3..].iter().position(|c| *c == '\'').unwrap_or(0);
            (Mode::Code, close + 4)
        }
        ('\'', _) if here(2) == '\'' => (Mode::Code, 3),
        ('r', _) if starts_word => raw_text(chars, at, 1),
        ('b' | 'c', 'r') if starts_word => raw_text(chars, at, 2),
        _ => (Mode::Code, 1),
    }
}

fn raw_text(chars: &[char], at: usize, prefix: usize) -> (Mode, usize) {
    let hashes = chars[at + prefix..].iter().take_while(|c| **c == '#').count();
    match chars.get(at + prefix + hashes) {
        Some('"') => (Mode::RawText { hashes }, prefix + hashes + 1),
        _ => (Mode::Code, 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code_of(text: &str) -> String {
        blank_what_is_no_code(text).split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn comments_and_literals_are_blank_and_code_stays() {
        assert_eq!(code_of("a // todo!()\nb"), "a b");
        assert_eq!(code_of("a /* x /* y */ z */ b"), "a b");
        assert_eq!(code_of(r#"f("unsafe \" {", 1)"#), "f( , 1)");
        assert_eq!(code_of("f(r#\"unsafe \" {\"#, b\"x\")"), "f( , b )");
        assert_eq!(
            code_of("let r#type: &'a str = '{'; let c = '\\''; d"),
            "let r#type: &'a str = ; let c = ; d"
        );
    }

    #[test]
    fn blanking_keeps_every_line_where_it_was() {
        let text = "a\n/* b\nc */\n\"d\ne\" f\n";
        assert_eq!(blank_what_is_no_code(text).lines().count(), text.lines().count());
        assert_eq!(blank_what_is_no_code(text).lines().nth(4), Some("   f"));
    }

    #[test]
    fn test_items_are_told_from_the_rest() {
        let file = TextFile::example(
            "types/src/a.rs",
            "fn a() {}\n#[cfg(test)]\nmod tests {\n fn b() {}\n}\n#[cfg(not(test))]\nfn c() {}\n",
        );
        let code = RustCode::new(&file);
        let marks: Vec<bool> = (1..=7).map(|line| code.is_test_line(line)).collect();
        assert_eq!(marks, [false, true, true, true, true, false, false]);
    }

    #[test]
    fn an_item_ends_at_its_semicolon_or_its_closing_brace() {
        assert_eq!(item_end("fn a(x: [u8; 2]) { b; } c", 0), 23);
        assert_eq!(item_end("use a; b", 0), 6);
        assert_eq!(item_end("mod", 0), 3);
    }
}
