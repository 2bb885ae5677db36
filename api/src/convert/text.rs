//! Reading the parts that travel as text.

use std::fmt::Display;
use std::str::FromStr;

use crate::InvalidField;

/// A value in its text form.
pub(super) fn parse<T: FromStr<Err: Display>>(field: &str, text: &str) -> Result<T, InvalidField> {
    text.parse().map_err(|reason| InvalidField::new(field, reason))
}

/// A value in its text form, `None` where the text is empty.
pub(super) fn parse_optional<T: FromStr<Err: Display>>(
    field: &str,
    text: &str,
) -> Result<Option<T>, InvalidField> {
    if text.is_empty() { Ok(None) } else { parse(field, text).map(Some) }
}

/// A message that must be there.
pub(super) fn required<M, T>(field: &str, message: Option<M>) -> Result<T, InvalidField>
where
    T: TryFrom<M, Error = InvalidField>,
{
    let message = message.ok_or_else(|| InvalidField::missing(field))?;
    T::try_from(message).map_err(|error| error.within(field))
}

/// Each message of a list.
pub(super) fn each<M, T>(field: &str, messages: Vec<M>) -> Result<Vec<T>, InvalidField>
where
    T: TryFrom<M, Error = InvalidField>,
{
    let read = |(i, message)| {
        T::try_from(message).map_err(|error: InvalidField| error.within(format!("{field}[{i}]")))
    };
    messages.into_iter().enumerate().map(read).collect()
}
