//! The way from a text to a spec, and the same checks for a spec that comes without its text.

use crate::DeploymentSpec;

use super::error::{Place, SpecError};
use super::fields::Reader;
use super::node::{Format, Node, Value};
use super::{relations, rules, structure};

/// The largest deployment file.
pub const MAX_FILE_BYTES: usize = 1 << 20;
/// The most mistakes that are listed at once.
pub const MAX_ERRORS: usize = 100;

/// Reads and checks a deployment file.
///
/// # Errors
/// All mistakes in the order of the file, up to [`MAX_ERRORS`]. Rules between fields are checked once
/// every field can be read, so correcting one mistake may show another.
pub fn parse(text: &str, format: Format) -> Result<DeploymentSpec, Vec<SpecError>> {
    let root = read(text, format).map_err(|error| vec![error])?;
    let reader = Reader::default();
    let spec = structure::deployment(&reader, &root);
    let mut errors = reader.into_errors();
    let readable = errors.is_empty();
    let mut broken = rules::check(&spec);
    broken.retain(|rule| !errors.iter().any(|error| one_above_other(&error.field, &rule.field)));
    if readable {
        broken.extend(relations::check(&spec));
    }
    for error in &mut broken {
        error.place = Some(root.nearest(&error.field).place());
    }
    errors.extend(broken);
    if errors.is_empty() {
        return Ok(spec);
    }
    errors.sort_by(|a, b| a.place.cmp(&b.place));
    errors.truncate(MAX_ERRORS);
    Err(errors)
}

/// Checks a spec that did not come from a file of this process. The errors have no place; [`locate`] adds
/// it where the text is at hand.
///
/// # Errors
/// All broken rules, up to [`MAX_ERRORS`].
pub fn validate(spec: &DeploymentSpec) -> Result<(), Vec<SpecError>> {
    let mut errors = rules::check(spec);
    errors.extend(relations::check(spec));
    errors.truncate(MAX_ERRORS);
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

/// Gives each of `errors` its place in the file that it is about, or that of the nearest field above it.
pub fn locate(text: &str, format: Format, errors: &mut [SpecError]) {
    let Ok(root) = read(text, format) else { return };
    for error in errors {
        error.place = Some(root.nearest(&error.field).place());
    }
}

fn read(text: &str, format: Format) -> Result<Node, SpecError> {
    let whole = |problem: String, advice: &str| {
        let place = Place { line: 1, column: 1, width: 1 };
        SpecError { place: Some(place), ..SpecError::new("", problem, advice) }
    };
    if text.len() > MAX_FILE_BYTES {
        let problem = format!("the file is {} bytes long, and {MAX_FILE_BYTES} are read", text.len());
        return Err(whole(problem, "split it into several deployments"));
    }
    if text.trim().is_empty() {
        return Err(whole("the file is empty".to_owned(), "begin with `deployment: NAME`"));
    }
    let root = Node::read(text, format)?;
    match root.value {
        Value::Map(_) => Ok(root),
        _ => Err(whole("the file holds no fields".to_owned(), "begin with `deployment: NAME`")),
    }
}

/// Whether a mistake in one field makes what is said of the other worthless.
fn one_above_other(a: &str, b: &str) -> bool {
    let above = |a: &str, b: &str| {
        b.strip_prefix(a).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    };
    above(a, b) || above(b, a)
}
