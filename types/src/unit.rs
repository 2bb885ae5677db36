//! Quantities that carry their unit: sizes in bytes, CPU in MHz, times in whole seconds.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A quantity that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a {what}: write {example}")]
pub struct ParseUnitError {
    /// What was given.
    pub text: String,
    /// What was wanted.
    pub what: &'static str,
    /// How to write it.
    pub example: &'static str,
}

/// A number of bytes. In files: a number with `B`, `KiB`, `MiB` or `GiB`, such as `64 MiB`.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct ByteSize(pub u64);

impl ByteSize {
    /// `n` times 1024 bytes.
    #[must_use]
    pub const fn kib(n: u64) -> Self {
        Self(n << 10)
    }

    /// `n` times 1024² bytes.
    #[must_use]
    pub const fn mib(n: u64) -> Self {
        Self(n << 20)
    }

    /// The number of bytes, for indexing memory.
    ///
    /// # Panics
    /// Where a `usize` is too small for it.
    #[must_use]
    pub fn bytes(self) -> usize {
        usize::try_from(self.0).expect("sizes fit the address space")
    }
}

const UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, size) = UNITS
            .into_iter()
            .find(|(_, size)| self.0 >= *size && self.0.is_multiple_of(*size))
            .unwrap_or(("B", 1));
        write!(f, "{} {unit}", self.0 / size)
    }
}

impl FromStr for ByteSize {
    type Err = ParseUnitError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (unit, size) = UNITS.into_iter().find(|(unit, _)| text.ends_with(unit))?;
            let number: u64 = text.strip_suffix(unit)?.trim().parse().ok()?;
            number.checked_mul(size).map(Self)
        };
        parse().ok_or_else(|| ParseUnitError {
            text: text.to_owned(),
            what: "size",
            example: "a whole number and a unit, such as `64 MiB` (B, KiB, MiB, GiB)",
        })
    }
}

impl TryFrom<String> for ByteSize {
    type Error = ParseUnitError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<ByteSize> for String {
    fn from(size: ByteSize) -> Self {
        size.to_string()
    }
}

/// A share of a host's processors in MHz, as Nomad counts it: 500 is half of one 1 GHz core.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(transparent)]
pub struct CpuMhz(pub u32);

impl fmt::Display for CpuMhz {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} MHz", self.0)
    }
}

/// A time in files, written with its unit, such as `30s` or `2m`; whole milliseconds at the finest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct Period(pub Duration);

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

impl FromStr for Period {
    type Err = ParseUnitError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        humantime::parse_duration(text).map(Self).map_err(|_| ParseUnitError {
            text: text.to_owned(),
            what: "time",
            example: "a whole number and a unit, such as `30s` (ms, s, m, h)",
        })
    }
}

impl TryFrom<String> for Period {
    type Error = ParseUnitError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Period> for String {
    fn from(time: Period) -> Self {
        time.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_reads_back_what_it_prints() {
        for (text, bytes) in [("0 B", 0), ("1 B", 1), ("1536 B", 1536), ("2 KiB", 2048), ("64 MiB", 64 << 20)]
        {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)));
            assert_eq!(ByteSize(bytes).to_string(), text);
        }
        for bad in ["", "64", "64 MB", "-1 B", "1.5 MiB", "99999999999 GiB"] {
            assert!(bad.parse::<ByteSize>().is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn a_time_needs_its_unit() {
        assert_eq!("30s".parse(), Ok(Period(Duration::from_secs(30))));
        assert!("30".parse::<Period>().is_err());
    }
}
