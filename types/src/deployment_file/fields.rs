//! Taking a map apart field by field, noting every mistake instead of stopping at the first.
//!
//! A field that can't be read leaves a valid placeholder in its place, so that the rest is still checked;
//! a spec is only ever handed out where no mistake was noted.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::str::FromStr;

use super::error::{SpecError, shown};
use super::node::{At, Key, Node, Value};
use super::suggest;

/// The mistakes found so far.
#[derive(Default)]
pub(super) struct Reader {
    errors: RefCell<Vec<SpecError>>,
}

impl Reader {
    pub(super) fn into_errors(self) -> Vec<SpecError> {
        self.errors.into_inner()
    }

    pub(super) fn refuse(&self, at: At, path: &str, problem: impl Into<String>, advice: impl Into<String>) {
        let mut error = SpecError::new(path, problem, advice);
        error.place = Some(at.place());
        self.errors.borrow_mut().push(error);
    }

    fn refuse_kind(&self, node: &Node, path: &str, wanted: &str, advice: impl Into<String>) {
        self.refuse(node.at, path, format!("{} is not {wanted}", described(&node.value)), advice);
    }

    /// The items of a list, each with its path.
    pub(super) fn list<'n>(&self, node: &'n Node, path: &str) -> Vec<(String, &'n Node)> {
        match &node.value {
            Value::List(items) => {
                items.iter().enumerate().map(|(index, item)| (format!("{path}[{index}]"), item)).collect()
            }
            Value::Null => Vec::new(),
            _ => {
                self.refuse_kind(node, path, "a list", "write the items as `- …` lines or within `[…]`");
                Vec::new()
            }
        }
    }

    /// A map whose keys the author chooses.
    pub(super) fn entries<'n>(&self, node: &'n Node, path: &str) -> &'n [(Key, Node)] {
        match &node.value {
            Value::Map(entries) => entries,
            Value::Null => &[],
            _ => {
                self.refuse_kind(node, path, "a map", "write `NAME: value` lines");
                &[]
            }
        }
    }

    /// A text as it stands.
    pub(super) fn text<'n>(&self, node: &'n Node, path: &str) -> Option<&'n str> {
        match &node.value {
            Value::Text(text) => Some(text),
            Value::Null => {
                self.refuse(node.at, path, "has no value", "write a text; an empty one as `\"\"`");
                None
            }
            other => {
                let advice = if matches!(other, Value::List(_) | Value::Map(_)) {
                    "write one text"
                } else {
                    "put it in quotes to make it text"
                };
                self.refuse_kind(node, path, "a text", advice);
                None
            }
        }
    }

    /// A text that means something.
    pub(super) fn written<T: Written>(&self, node: &Node, path: &str) -> Option<T> {
        let (text, quoted) = match &node.value {
            Value::Whole(number) => (number.to_string(), false),
            Value::Fraction(number) => (number.to_string(), false),
            _ => (self.text(node, path)?.to_owned(), true),
        };
        let read = text.parse().ok();
        if read.is_some() && !quoted {
            // `010` and `1e3` have already lost how they were written.
            self.refuse_kind(node, path, "a text", "put it in quotes to make it text");
        }
        if read.is_none() {
            let meant = T::meant(&text).map(|meant| format!("; did you mean `{meant}`?")).unwrap_or_default();
            let problem = format!("{} is not {}", shown(&text), T::WHAT);
            self.refuse(node.at, path, problem, format!("{}{meant}", T::ADVICE));
        }
        read
    }

    pub(super) fn number(&self, node: &Node, path: &str, unit: &str) -> Option<u32> {
        match &node.value {
            Value::Whole(number) => {
                let read = u32::try_from(*number).ok();
                if read.is_none() {
                    let problem = format!("{number} is out of range");
                    self.refuse(node.at, path, problem, format!("write a whole number{unit}, at least 1"));
                }
                return read;
            }
            Value::Text(text) => {
                let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
                let meant = match digits {
                    0 => String::new(),
                    _ => format!("; did you mean `{}`?", &text[..digits]),
                };
                let advice = format!("write a whole number{unit}, without quotes and unit{meant}");
                self.refuse_kind(node, path, "a number", advice);
            }
            _ => self.refuse_kind(node, path, "a whole number", format!("write a whole number{unit}")),
        }
        None
    }
}

/// A value that a file writes as text.
pub(super) trait Written: FromStr {
    /// What it is, with its article.
    const WHAT: &'static str;
    /// How to write it.
    const ADVICE: &'static str;

    /// What someone who wrote `text` may have meant.
    fn meant(text: &str) -> Option<String> {
        let _ = text;
        None
    }
}

fn described(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Bool(value) => format!("`{value}`"),
        Value::Whole(number) => format!("`{number}`"),
        Value::Fraction(number) => format!("`{number}`"),
        Value::Text(text) => shown(text),
        Value::List(_) => "a list".to_owned(),
        Value::Map(_) => "a map".to_owned(),
    }
}

/// A map whose fields are known.
pub(super) struct Fields<'r, 'n> {
    pub(super) reader: &'r Reader,
    path: String,
    at: At,
    entries: &'n [(Key, Node)],
    known: BTreeSet<&'static str>,
    /// The node is no map: what was to be said is said.
    broken: bool,
}

impl<'r, 'n> Fields<'r, 'n> {
    pub(super) fn of(reader: &'r Reader, node: &'n Node, path: &str) -> Self {
        let (entries, broken) = match &node.value {
            Value::Map(entries) => (entries.as_slice(), false),
            Value::Null => (&[][..], false),
            _ => {
                reader.refuse_kind(node, path, "a map", "write `field: value` lines");
                (&[][..], true)
            }
        };
        Self { reader, path: path.to_owned(), at: node.at, entries, known: BTreeSet::new(), broken }
    }

    pub(super) fn path_of(&self, field: &str) -> String {
        if self.path.is_empty() { field.to_owned() } else { format!("{}.{field}", self.path) }
    }

    /// The field's value, where it has one.
    pub(super) fn take(&mut self, field: &'static str) -> Option<&'n Node> {
        self.known.insert(field);
        let (_, node) = self.entries.iter().find(|(key, _)| key.name == field)?;
        (!matches!(node.value, Value::Null)).then_some(node)
    }

    fn take_required(&mut self, field: &'static str, advice: &str) -> Option<&'n Node> {
        let taken = self.take(field);
        if taken.is_none() && !self.broken {
            let written = self.entries.iter().find(|(key, _)| key.name == field);
            let (at, problem) = match written {
                Some((key, _)) => (key.at, "has no value"),
                None => (self.at, "is missing"),
            };
            self.reader.refuse(at, &self.path_of(field), problem, advice);
        }
        taken
    }

    pub(super) fn required<T: Written>(&mut self, field: &'static str, placeholder: &str) -> T
    where
        T::Err: std::fmt::Debug,
    {
        self.take_required(field, T::ADVICE)
            .and_then(|node| self.reader.written(node, &self.path_of(field)))
            .unwrap_or_else(|| placeholder.parse().expect("placeholders are valid"))
    }

    pub(super) fn required_node(&mut self, field: &'static str, advice: &str) -> Option<&'n Node> {
        self.take_required(field, advice)
    }

    pub(super) fn required_text(&mut self, field: &'static str, advice: &str) -> Option<String> {
        let node = self.take_required(field, advice)?;
        self.reader.text(node, &self.path_of(field)).map(str::to_owned)
    }

    pub(super) fn optional<T: Written>(&mut self, field: &'static str) -> Option<T> {
        let node = self.take(field)?;
        self.reader.written(node, &self.path_of(field))
    }

    pub(super) fn optional_text(&mut self, field: &'static str) -> Option<String> {
        let node = self.take(field)?;
        self.reader.text(node, &self.path_of(field)).map(str::to_owned)
    }

    /// A number; one that can't be read becomes 1, so that the field counts as given.
    pub(super) fn optional_number(&mut self, field: &'static str, unit: &str) -> Option<u32> {
        let node = self.take(field)?;
        Some(self.reader.number(node, &self.path_of(field), unit).unwrap_or(1))
    }

    pub(super) fn flag(&mut self, field: &'static str) -> bool {
        let Some(node) = self.take(field) else { return false };
        if let Value::Bool(value) = node.value {
            return value;
        }
        self.reader.refuse_kind(node, &self.path_of(field), "true or false", "write `true` or `false`");
        false
    }

    /// The items of a list that may be absent.
    pub(super) fn list(&mut self, field: &'static str) -> Vec<(String, &'n Node)> {
        let Some(node) = self.take(field) else { return Vec::new() };
        self.reader.list(node, &self.path_of(field))
    }

    pub(super) fn texts(&mut self, field: &'static str) -> Vec<String> {
        let items = self.list(field);
        items
            .into_iter()
            .filter_map(|(path, node)| self.reader.text(node, &path).map(str::to_owned))
            .collect()
    }

    /// Refuses what was not taken. `later` are fields that a later version may offer.
    pub(super) fn finish(self, later: &[&str]) {
        for (key, _) in self.entries {
            if self.known.contains(key.name.as_str()) {
                continue;
            }
            let path = self.path_of(&key.name);
            if later.contains(&key.name.as_str()) {
                self.reader.refuse(key.at, &path, "is not offered by this version", "remove it");
                continue;
            }
            let advice = match suggest::nearest(&key.name, self.known.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => {
                    let known: Vec<&str> = self.known.iter().copied().collect();
                    format!("here may stand: {}", known.join(", "))
                }
            };
            self.reader.refuse(key.at, &path, "is no field that is known here", advice);
        }
    }
}
