//! Which partitions are meant: all, those of a deployment, of a group, or one.

use std::str::FromStr;

use hvm_types::{DeploymentName, GroupName, ReplicaId};

/// A selection of partitions.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Prefix {
    pub(crate) deployment: Option<DeploymentName>,
    pub(crate) group: Option<GroupName>,
    pub(crate) index: Option<u32>,
}

/// A text that selects nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` selects no partitions: write deployment, deployment/group or deployment/group/number")]
pub(crate) struct PrefixError {
    text: String,
}

impl Prefix {
    pub(crate) fn selects(&self, replica: &ReplicaId) -> bool {
        self.deployment.as_ref().is_none_or(|deployment| *deployment == replica.deployment)
            && self.group.as_ref().is_none_or(|group| *group == replica.group)
            && self.index.is_none_or(|index| index == replica.index)
    }
}

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, PrefixError> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let parse = || {
            let mut parts = text.split('/');
            let prefix = Self {
                deployment: Some(parts.next()?.parse().ok()?),
                group: parts.next().map(str::parse).transpose().ok()?,
                index: parts.next().map(str::parse).transpose().ok()?,
            };
            parts.next().is_none().then_some(prefix)
        };
        parse().ok_or_else(|| PrefixError { text: text.chars().take(80).collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_selects_whole_names_only() {
        let replica: ReplicaId = "shop/web/3".parse().expect("a replica");
        for (text, selects) in [
            ("", true),
            ("shop", true),
            ("shop/web", true),
            ("shop/web/3", true),
            ("sho", false),
            ("shop/we", false),
            ("shop/web/4", false),
        ] {
            assert_eq!(text.parse::<Prefix>().expect("a prefix").selects(&replica), selects, "{text}");
        }
        for bad in ["shop/web/3/4", "shop/web/x", "../etc", "/", "shop/"] {
            assert!(bad.parse::<Prefix>().is_err(), "{bad}");
        }
    }
}
