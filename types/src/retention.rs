//! What a partition keeps of its past beside its state: whole records, and answers under idempotency keys.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ByteSize, Period};

/// What the partitions of a group keep of their past.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetentionSpec {
    /// Which records are kept whole; none where it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history: Option<HistorySpec>,
    /// How long answers are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency: Option<IdempotencySpec>,
}

impl RetentionSpec {
    /// Whether it says nothing, and is not written.
    #[must_use]
    pub const fn is_unset(&self) -> bool {
        self.history.is_none() && self.idempotency.is_none()
    }
}

/// Which records a partition keeps whole: `1000` of them, those of the last `24h`, or a mapping of several limits. The
/// oldest go when one of the limits is exceeded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(from = "HistoryForm", into = "HistoryForm")]
#[schemars(with = "HistoryForm")]
pub struct HistorySpec {
    /// Most records.
    pub records: Option<u32>,
    /// Longest age.
    pub age: Option<Period>,
    /// Most bytes of them together; 256 MiB where it is missing.
    pub bytes: Option<ByteSize>,
}

impl HistorySpec {
    /// Most bytes of kept records where a deployment says nothing of them.
    pub const DEFAULT_BYTES: ByteSize = ByteSize::mib(256);
}

/// As a file writes it.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
enum HistoryForm {
    /// Most records.
    Records(u32),
    /// Longest age.
    Age(Period),
    /// Several limits.
    Limits(HistoryLimits),
}

/// Limits of a history: the oldest records go when one of them is exceeded.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct HistoryLimits {
    /// Most records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    records: Option<u32>,
    /// Longest age.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    age: Option<Period>,
    /// Most bytes of them together; 256 MiB where it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bytes: Option<ByteSize>,
}

impl From<HistoryForm> for HistorySpec {
    fn from(form: HistoryForm) -> Self {
        match form {
            HistoryForm::Records(records) => Self { records: Some(records), ..Self::default() },
            HistoryForm::Age(age) => Self { age: Some(age), ..Self::default() },
            HistoryForm::Limits(HistoryLimits { records, age, bytes }) => Self { records, age, bytes },
        }
    }
}

impl From<HistorySpec> for HistoryForm {
    fn from(spec: HistorySpec) -> Self {
        match spec {
            HistorySpec { records: Some(records), age: None, bytes: None } => Self::Records(records),
            HistorySpec { records: None, age: Some(age), bytes: None } => Self::Age(age),
            HistorySpec { records, age, bytes } => Self::Limits(HistoryLimits { records, age, bytes }),
        }
    }
}

/// How long a partition keeps answers under idempotency keys: the oldest go when one of the limits is exceeded, and a
/// key whose answer went is new again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IdempotencySpec {
    /// Most answers; 10,000 where it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answers: Option<u32>,
    /// Longest age; 24 hours where it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age: Option<Period>,
    /// Most bytes of keys and answers together; 16 MiB where it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<ByteSize>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_reads_back_in_the_shortest_form() {
        for text in [r#"1000"#, r#""1day""#, r#"{"records":5,"age":"1h"}"#, r#"{"bytes":"1 MiB"}"#] {
            let spec: HistorySpec = serde_json::from_str(text).expect("a history");
            assert_eq!(serde_json::to_string(&spec).expect("JSON"), text);
        }
        assert!(serde_json::from_str::<HistorySpec>(r#"{"record":5}"#).is_err());
    }
}
