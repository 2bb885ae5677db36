//! Text to a tree of values in which each knows its line: the one module that touches the YAML library.
//!
//! JSON is read as YAML, of which it is a subset, after a strict JSON parser has accepted it. The size of
//! the tree is bounded, whatever aliases the text repeats.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess};
use serde_saphyr::{DuplicateKeyPolicy, Location, MessageFormatter, Spanned, UserMessageFormatter};

use super::error::{Place, SpecError, escaped};

/// Nodes of a file, aliases counted each time that they are used.
const MAX_NODES: usize = 100_000;
/// Bytes of text in these nodes.
const MAX_TEXT_BYTES: usize = 4 << 20;
const MAX_DEPTH: usize = 32;
const MAX_ALIASES: usize = 1_000;

/// How a deployment file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// YAML 1.2, one document.
    Yaml,
    /// JSON (RFC 8259).
    Json,
}

impl Format {
    /// JSON where the file's name ends in `.json`, else YAML.
    #[must_use]
    pub fn of_file_name(name: &str) -> Self {
        if name.to_ascii_lowercase().ends_with(".json") { Self::Json } else { Self::Yaml }
    }
}

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) value: Value,
    pub(super) at: At,
}

#[derive(Debug, Clone)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Whole(i128),
    Fraction(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

/// A field's name and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Key {
    pub(super) name: String,
    pub(super) at: At,
}

/// A place in the text that is being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct At {
    line: u32,
    column: u32,
    width: u32,
}

impl At {
    pub(super) fn place(self) -> Place {
        Place { line: self.line, column: self.column, width: self.width }
    }

    fn of(location: Location, width: u64) -> Self {
        let small = |n: u64| u32::try_from(n).unwrap_or(u32::MAX).max(1);
        Self { line: small(location.line()), column: small(location.column()), width: small(width) }
    }
}

impl Node {
    /// Reads `text`.
    pub(super) fn read(text: &str, format: Format) -> Result<Self, SpecError> {
        let as_yaml;
        let text = match format {
            Format::Yaml => text,
            Format::Json => {
                serde_json::from_str::<IgnoredAny>(text).map_err(|error| json_error(&error))?;
                as_yaml = json_as_yaml(text);
                &as_yaml
            }
        };
        let options = serde_saphyr::options! {
            budget: serde_saphyr::budget! {
                max_nodes: MAX_NODES,
                max_events: 2 * MAX_NODES,
                max_total_scalar_bytes: MAX_TEXT_BYTES,
                max_recorded_anchor_events: MAX_NODES,
                max_recorded_anchor_bytes: MAX_TEXT_BYTES,
                max_depth: MAX_DEPTH,
                max_aliases: MAX_ALIASES,
                max_anchors: MAX_ALIASES,
            },
            duplicate_keys: DuplicateKeyPolicy::Error,
            strict_booleans: true,
            with_snippet: false,
        };
        serde_saphyr::from_str_with_options(text, options).map_err(|error| yaml_error(&error, text, format))
    }

    /// The node at `path`, or the nearest one above it that is there.
    pub(super) fn nearest(&self, path: &str) -> At {
        match &self.value {
            Value::Map(entries) => {
                // A key may itself hold dots: the longest that fits is meant.
                let fitting = entries.iter().filter_map(|(key, node)| {
                    let rest = path.strip_prefix(key.name.as_str())?;
                    let ends = rest.is_empty() || rest.starts_with(['.', '[']);
                    ends.then_some((key.name.len(), rest, node))
                });
                match fitting.max_by_key(|(length, ..)| *length) {
                    Some((_, rest, node)) => node.nearest(rest.strip_prefix('.').unwrap_or(rest)),
                    None => self.at,
                }
            }
            Value::List(items) => {
                let found = path.strip_prefix('[').and_then(|rest| {
                    let (index, rest) = rest.split_once(']')?;
                    Some((items.get(index.parse::<usize>().ok()?)?, rest))
                });
                match found {
                    Some((node, rest)) => node.nearest(rest.strip_prefix('.').unwrap_or(rest)),
                    None => self.at,
                }
            }
            _ => self.at,
        }
    }
}

/// The same JSON in characters that YAML takes. A tab only ever stands between tokens, and what YAML calls
/// unprintable (1.2.2, 5.1) or might break a line at only in strings, where an escape means the same.
fn json_as_yaml(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\t' => out.push(' '),
            '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}' => {
                out.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            other => out.push(other),
        }
    }
    out
}

fn json_error(error: &serde_json::Error) -> SpecError {
    let small = |n: usize| u32::try_from(n).unwrap_or(u32::MAX).max(1);
    let (line, column) = (small(error.line()), small(error.column()));
    let full = error.to_string();
    let problem = full.split(" at line ").next().unwrap_or(&full);
    SpecError {
        place: Some(Place { line, column, width: 1 }),
        field: String::new(),
        problem: format!("this is no JSON: {}", escaped(problem)),
        advice: "correct the JSON, or name the file `.yaml` if it is YAML".to_owned(),
    }
}

fn yaml_error(error: &serde_saphyr::Error, text: &str, format: Format) -> SpecError {
    let mut inner = error.without_snippet();
    while let serde_saphyr::Error::AliasError { error, .. } = inner {
        inner = error;
    }
    let mut at = error.location().map(|location| At::of(location, 1));
    let advice = match inner {
        serde_saphyr::Error::DuplicateMappingKey { .. } => "keep one of the two",
        serde_saphyr::Error::MultipleDocuments { .. } => "write one deployment per file: remove `---`",
        serde_saphyr::Error::Budget { .. }
        | serde_saphyr::Error::AliasReplayLimitExceeded { .. }
        | serde_saphyr::Error::AliasReplayStackDepthExceeded { .. } => {
            "make the file smaller, shallower or less repetitive"
        }
        _ if format == Format::Json => "write control characters as escapes, such as `\\u007f`",
        _ => match indenting_tab(text) {
            Some(tab) => {
                at = Some(tab);
                "indent with spaces: here stands a tab"
            }
            None => {
                "indent with spaces, write `field: value`, and quote text that begins with a special character"
            }
        },
    };
    SpecError {
        place: at.map(At::place),
        field: String::new(),
        problem: format!("this can't be read: {}", escaped(&UserMessageFormatter.format_message(inner))),
        advice: advice.to_owned(),
    }
}

/// The first tab with which a line is indented: the parser would point at the value before it.
fn indenting_tab(text: &str) -> Option<At> {
    text.lines().zip(1..).find_map(|(line, number)| {
        let indent = &line[..line.len() - line.trim_start().len()];
        let column = indent.chars().position(|c| c == '\t')?;
        Some(At { line: number, column: u32::try_from(column).ok()?.saturating_add(1), width: 1 })
    })
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Spanned { value, referenced, .. } = Spanned::<Value>::deserialize(deserializer)?;
        // Lists and maps are pointed at by their first character; text of several lines by its first.
        let width = match &value {
            Value::List(_) | Value::Map(_) | Value::Null => 1,
            Value::Text(text) if text.contains('\n') => 1,
            _ => referenced.span().len(),
        };
        Ok(Self { value, at: At::of(referenced, width) })
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Spanned { value, referenced, .. } = Spanned::<String>::deserialize(deserializer)?;
        Ok(Self { name: value, at: At::of(referenced, referenced.span().len()) })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> de::Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Whole(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Whole(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Fraction(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Value::Map(map))
    }
}
