//! Host documents.

use std::sync::Arc;

use hvm_types::{
    Assignment, Digest, Epoch, Generation, GroupPlacement, HostDocument, HostId, KeySource, PartitionOwner,
    RetentionSpec, RouteMatch, RouteSpec, RouteTarget, RoutingTable, TaskSpec,
};

/// All grants that the probe needs, as they stand in a deployment file.
const TASK: &str = r#"{
    "name": "web", "driver": "app-partition", "config": { "package": "web" }, "env": { "COLOUR": "blue" },
    "grants": { "keyvalue": ["default"], "config": true, "logging": true, "http": ["https://example.com"] }
}"#;

/// Partitions `shop/parts/0` and so on, of which those in `indexes` are assigned.
pub(crate) fn assignments(
    indexes: impl IntoIterator<Item = u32>,
    generation: u64,
    image: Digest,
) -> Vec<Assignment> {
    let task: Arc<TaskSpec> = serde_json::from_str(TASK).map(Arc::new).expect("a task");
    let assignment = |index: u32| Assignment {
        replica: format!("shop/parts/{index}").parse().expect("a replica"),
        generation: Generation(generation),
        epoch: Epoch(1),
        image,
        stateful: true,
        retention: RetentionSpec::default(),
        task: Arc::clone(&task),
    };
    indexes.into_iter().map(assignment).collect()
}

/// A document with these assignments. `owners` are all hosts with their ingress; partition `i` belongs to the
/// host `i` modulo their number. Routed by the query parameter `k`.
pub(crate) fn document(
    version: u64,
    assignments: Vec<Assignment>,
    copies: u32,
    hosts: &[(HostId, String)],
) -> HostDocument {
    let owner = |index: u32| PartitionOwner {
        index,
        host: hosts[usize::try_from(index).expect("small") % hosts.len()].0.clone(),
        epoch: Epoch(1),
    };
    let routing = RoutingTable {
        hosts: hosts.iter().cloned().collect(),
        routes: vec![RouteTarget {
            deployment: "shop".parse().expect("a name"),
            route: RouteSpec {
                r#match: RouteMatch { host: None, prefix: "/".to_owned() },
                group: "parts".parse().expect("a name"),
                key: Some(KeySource::Query("k".to_owned())),
            },
        }],
        groups: vec![GroupPlacement {
            deployment: "shop".parse().expect("a name"),
            group: "parts".parse().expect("a name"),
            partitioned: true,
            copies,
            owners: (0..copies).map(owner).collect(),
        }],
    };
    HostDocument { assignments, routing, version, purge: Vec::new() }
}
