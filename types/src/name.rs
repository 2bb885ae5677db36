//! Names of declared things, and the id of a replica. All names are DNS labels, so that each can stand in
//! a path, a host name or a metric without escaping.

use std::cell::RefCell;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A name that is not a DNS label (RFC 1123): 1 to 63 of `a-z 0-9 -`, no `-` at either end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "name `{name}` is not valid: use 1 to 63 of the characters a-z, 0-9 and `-`, with no `-` at either end"
)]
pub struct InvalidName {
    /// What was given, cut to 80 characters.
    pub name: String,
}

fn check(name: &str) -> Result<(), InvalidName> {
    let edge = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let bytes = name.as_bytes();
    let valid = (1..=63).contains(&bytes.len())
        && bytes.iter().all(|&c| edge(c) || c == b'-')
        && edge(bytes[0])
        && edge(bytes[bytes.len() - 1]);
    if valid { Ok(()) } else { Err(InvalidName { name: name.chars().take(80).collect() }) }
}

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(
            Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema,
        )]
        #[serde(try_from = "String", into = "String")]
        #[schemars(with = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;

            /// Thousands of ids name the same deployment, one after another: they share its text.
            fn from_str(name: &str) -> Result<Self, InvalidName> {
                thread_local! {
                    static LAST: RefCell<Option<Arc<str>>> = const { RefCell::new(None) };
                }
                LAST.with_borrow_mut(|last| match last {
                    Some(last) if **last == *name => Ok(Self(Arc::clone(last))),
                    _ => {
                        check(name)?;
                        Ok(Self(Arc::clone(last.insert(name.into()))))
                    }
                })
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;

            fn try_from(name: String) -> Result<Self, InvalidName> {
                name.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.as_str().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}

names! {
    /// An app: what an author builds and signs.
    AppName;
    /// A named part of an app.
    PackageName;
    /// A deployment: what an operator declares.
    DeploymentName;
    /// A job of a deployment.
    JobName;
    /// A group of a job; unique in its deployment.
    GroupName;
    /// A task of a group.
    TaskName;
    /// A machine with an agent.
    HostId;
    /// A state store that several hosts reach. It is drawn once and kept in the store, because two hosts may reach
    /// one store by different addresses.
    StoreId;
}

impl StoreId {
    /// Its first eight characters: for people, never for comparing.
    #[must_use]
    pub fn short(&self) -> &str {
        self.0.get(..8).unwrap_or(&self.0)
    }
}

/// One copy of a group: `deployment/group/index`. Of a partitioned group it names the partition, whose
/// durable state it keys; it therefore holds nothing that a redeployment changes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ReplicaId {
    /// The deployment it belongs to.
    pub deployment: DeploymentName,
    /// The group it is a copy of.
    pub group: GroupName,
    /// Its number, from 0.
    pub index: u32,
}

/// A text that is not `deployment/group/index`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a partition: write deployment/group/number, for example ledger/accounts/3")]
pub struct ParseReplicaIdError {
    /// What was given, cut to 80 characters.
    pub text: String,
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.deployment, self.group, self.index)
    }
}

impl FromStr for ReplicaId {
    type Err = ParseReplicaIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let mut parts = text.split('/');
            let id = Self {
                deployment: parts.next()?.parse().ok()?,
                group: parts.next()?.parse().ok()?,
                index: parts.next()?.parse().ok()?,
            };
            parts.next().is_none().then_some(id)
        };
        parse().ok_or_else(|| ParseReplicaIdError { text: text.chars().take(80).collect() })
    }
}

impl TryFrom<String> for ReplicaId {
    type Error = ParseReplicaIdError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<ReplicaId> for String {
    fn from(id: ReplicaId) -> Self {
        id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_dns_label() {
        for good in ["a", "flightboard", "a-1", &"x".repeat(63)] {
            assert_eq!(good.parse::<AppName>().map(|n| n.to_string()), Ok(good.to_owned()));
        }
        for bad in ["", "-a", "a-", "A", "a_b", "a/b", "ä", &"x".repeat(64)] {
            assert!(bad.parse::<AppName>().is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn ids_of_one_group_share_their_names() {
        let read = |text: &str| text.parse::<ReplicaId>().expect("a valid id");
        let (one, other) = (read("ledger/accounts/3"), read("ledger/accounts/4"));
        assert!(
            Arc::ptr_eq(&one.deployment.0, &other.deployment.0) && Arc::ptr_eq(&one.group.0, &other.group.0)
        );
        assert_ne!(read("other/accounts/3").deployment, one.deployment);
        assert!("A/accounts/3".parse::<ReplicaId>().is_err());
        assert_eq!(read("ledger/accounts/3"), one);
    }

    #[test]
    fn a_replica_id_reads_back_what_it_prints() {
        let id: ReplicaId = "ledger/accounts/3".parse().expect("a valid id");
        assert_eq!(id.to_string(), "ledger/accounts/3");
        for bad in ["ledger/accounts", "ledger/accounts/-1", "ledger/accounts/3/4", "a//1", "a/b/4294967296"]
        {
            assert!(bad.parse::<ReplicaId>().is_err(), "{bad:?} was taken");
        }
    }
}
