//! Capabilities: named groups of host functions that a component may import beyond plain WASI 0.2.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a package may be allowed to reach. WASI 0.2 itself (clocks, random, io, stdio, an empty
/// filesystem) is no capability: every component has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Capability {
    /// `wasi:keyvalue`: the partition's durable state.
    Keyvalue,
    /// `wasi:config`: the values that the deployment sets.
    Config,
    /// `wasi:logging`: the partition's log.
    Logging,
    /// `wasi:http/outgoing-handler`: requests to origins on the deployment's list.
    OutgoingHttp,
}

/// A name that is no capability.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` is no capability: there are keyvalue, config, logging and outgoing-http")]
pub struct ParseCapabilityError {
    /// What was given.
    pub name: String,
}

impl Capability {
    /// All there are.
    pub const ALL: [Self; 4] = [Self::Keyvalue, Self::Config, Self::Logging, Self::OutgoingHttp];

    /// The capability that an import such as `wasi:keyvalue/store@0.2.0-draft` needs; `None` where it
    /// needs none or where nobody offers it.
    #[must_use]
    pub fn of_import(import: &str) -> Option<Self> {
        let interface = import.split('@').next().unwrap_or(import);
        match interface {
            "wasi:http/outgoing-handler" => Some(Self::OutgoingHttp),
            _ => match interface.split('/').next().unwrap_or(interface) {
                "wasi:keyvalue" => Some(Self::Keyvalue),
                "wasi:config" => Some(Self::Config),
                "wasi:logging" => Some(Self::Logging),
                _ => None,
            },
        }
    }

    /// The name in files.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Keyvalue => "keyvalue",
            Self::Config => "config",
            Self::Logging => "logging",
            Self::OutgoingHttp => "outgoing-http",
        }
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Capability {
    type Err = ParseCapabilityError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|capability| capability.as_str() == name)
            .ok_or_else(|| ParseCapabilityError { name: name.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_import_names_the_capability_that_it_needs() {
        let needs = Capability::of_import;
        assert_eq!(needs("wasi:keyvalue/store@0.2.0-draft"), Some(Capability::Keyvalue));
        assert_eq!(needs("wasi:config/store"), Some(Capability::Config));
        assert_eq!(needs("wasi:http/outgoing-handler@0.2.3"), Some(Capability::OutgoingHttp));
        assert_eq!(needs("wasi:http/types@0.2.3"), None);
        assert_eq!(needs("wasi:keyvaluestore/x"), None);
    }
}
