//! How fine the rows are: a server of metrics keeps every combination of labels that it ever saw, so their number is
//! bounded.

use std::collections::BTreeSet;

use hvm_types::ReplicaId;
use prometheus_client::encoding::{EncodeLabelSet, LabelSetEncoder};

/// Most rows of one metric. Where there would be more, the rows of a group become one; where there are more groups
/// than that, those of a deployment; at last those of the host.
const MAX_ROWS: usize = 1_000;

/// What one row stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    Partition,
    Group,
    Deployment,
    Host,
}

/// The labels of one row: as many as its scope has.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct RowLabels {
    deployment: Option<String>,
    group: Option<String>,
    partition: Option<u32>,
}

impl Scope {
    /// The finest scope, not finer than `self`, in which these partitions need no more rows than are allowed.
    pub(super) fn that_fits<'a>(self, partitions: impl Iterator<Item = &'a ReplicaId> + Clone) -> Self {
        let scopes = [Self::Partition, Self::Group, Self::Deployment];
        let allowed = scopes.into_iter().skip_while(|scope| *scope != self);
        let fits = |scope: &Self| {
            let mut rows = BTreeSet::new();
            partitions.clone().all(|id| {
                rows.insert(scope.labels(id));
                rows.len() <= MAX_ROWS
            })
        };
        allowed.into_iter().find(fits).unwrap_or(Self::Host)
    }

    pub(super) fn labels(self, id: &ReplicaId) -> RowLabels {
        RowLabels {
            deployment: (self != Self::Host).then(|| id.deployment.to_string()),
            group: matches!(self, Self::Group | Self::Partition).then(|| id.group.to_string()),
            partition: (self == Self::Partition).then_some(id.index),
        }
    }
}

impl EncodeLabelSet for RowLabels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> std::fmt::Result {
        use prometheus_client::encoding::EncodeLabel as _;
        if let Some(deployment) = &self.deployment {
            ("deployment", deployment.as_str()).encode(encoder.encode_label())?;
        }
        if let Some(group) = &self.group {
            ("group", group.as_str()).encode(encoder.encode_label())?;
        }
        if let Some(partition) = self.partition {
            ("partition", partition).encode(encoder.encode_label())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rows_become_coarser_where_there_would_be_too_many() {
        let most = u32::try_from(MAX_ROWS).expect("small");
        let ids = |deployments: u32, groups: u32, partitions: u32| -> Vec<ReplicaId> {
            let all = (0..deployments).flat_map(move |deployment| {
                (0..groups).flat_map(move |group| {
                    (0..partitions).map(move |index| format!("d{deployment}/g{group}/{index}"))
                })
            });
            all.map(|id| id.parse().expect("a replica")).collect()
        };
        let scope = |ids: &[ReplicaId]| Scope::Partition.that_fits(ids.iter());
        assert_eq!(scope(&ids(1, 1, most)), Scope::Partition);
        assert_eq!(scope(&ids(1, 1, most + 1)), Scope::Group);
        assert_eq!(scope(&ids(1, most + 1, 1)), Scope::Deployment);
        assert_eq!(scope(&ids(most + 1, 1, 1)), Scope::Host);
        assert_eq!(Scope::Group.that_fits(ids(1, 1, 1).iter()), Scope::Group);
    }
}
