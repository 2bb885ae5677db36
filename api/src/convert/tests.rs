//! What is written reads back as it was; what is wrong is refused by the name of its field.

use std::time::Duration;

use hvm_types::{
    Assignment, BlobRef, Digest, Driver, Epoch, Generation, GroupPlacement, HistorySpec, HostDocument,
    HostSpec, ImageDocument, KeySource, Meter, PartitionOwner, ReplicaReport, ReplicaState, RetentionSpec,
    RouteMatch, RouteSpec, RouteTarget, RoutingTable, TaskConfig, TaskSpec,
};

use crate::{InvalidField, v1};

fn task(cpu: u32) -> TaskSpec {
    TaskSpec {
        name: "main".parse().expect("a valid name"),
        driver: Driver::AppPartition,
        config: TaskConfig { package: "web".parse().expect("a valid name") },
        env: [("CURRENCY".to_owned(), "EUR".to_owned())].into_iter().collect(),
        resources: hvm_types::Resources { cpu: Some(hvm_types::CpuMhz(cpu)), ..Default::default() },
        grants: hvm_types::Grants { keyvalue: vec!["default".to_owned()], ..Default::default() },
        instance: hvm_types::InstancePolicy::PerRequest,
        metering: hvm_types::Metering::Deterministic,
    }
}

/// One that some have and others have not.
fn history(index: u32) -> Option<HistorySpec> {
    (index > 0).then(|| HistorySpec { records: Some(index), ..HistorySpec::default() })
}

fn assignment(index: u32, cpu: u32) -> Assignment {
    Assignment {
        replica: format!("shop/carts/{index}").parse().expect("a valid id"),
        generation: Generation(3),
        epoch: Epoch(7),
        image: Digest::of(b"image"),
        stateful: true,
        retention: RetentionSpec { history: history(index), idempotency: None },
        task: task(cpu).into(),
    }
}

fn document() -> HostDocument {
    HostDocument {
        assignments: vec![assignment(0, 100), assignment(1, 100), assignment(2, 200)],
        routing: RoutingTable {
            hosts: [("a".parse().expect("a valid name"), "127.0.0.1:80".to_owned())].into(),
            routes: vec![RouteTarget {
                deployment: "shop".parse().expect("a valid name"),
                route: RouteSpec {
                    r#match: RouteMatch { host: None, prefix: "/carts".to_owned() },
                    group: "carts".parse().expect("a valid name"),
                    key: Some(KeySource::PathSegment(2)),
                },
            }],
            groups: vec![GroupPlacement {
                deployment: "shop".parse().expect("a valid name"),
                group: "carts".parse().expect("a valid name"),
                partitioned: true,
                copies: 3,
                owners: vec![PartitionOwner {
                    index: 0,
                    host: "a".parse().expect("a valid name"),
                    epoch: Epoch(7),
                }],
            }],
        },
        version: 42,
        purge: vec!["old/carts/9".parse().expect("a valid id")],
    }
}

#[test]
fn a_host_document_survives_the_wire_and_shares_its_tasks() {
    let message = v1::HostDocument::from(document());
    assert_eq!(message.tasks_json.len(), 2);
    assert_eq!(HostDocument::try_from(message), Ok(document()));
}

#[test]
fn a_wrong_assignment_is_named() {
    let mut message = v1::HostDocument::from(document());
    message.assignments[1].replica = "shop".to_owned();
    let error = HostDocument::try_from(message).expect_err("`shop` is no replica");
    assert_eq!(error.field, "assignments[1].replica");

    let mut message = v1::HostDocument::from(document());
    message.assignments[2].task = 2;
    let error = HostDocument::try_from(message).expect_err("there are two tasks");
    assert_eq!(error.field, "assignments[2].task");

    let mut message = v1::HostDocument::from(document());
    message.routing = None;
    let error = HostDocument::try_from(message).expect_err("routing is needed");
    assert_eq!(error, InvalidField::missing("routing"));
}

#[test]
fn every_state_survives_the_wire() {
    let states = [
        ReplicaState::Assigned,
        ReplicaState::Pulling,
        ReplicaState::Verifying,
        ReplicaState::Compiling,
        ReplicaState::Recovering,
        ReplicaState::Ready,
        ReplicaState::Hibernated,
        ReplicaState::Draining,
        ReplicaState::Stopped,
        ReplicaState::Failed { reason: "no space".to_owned() },
        ReplicaState::Fenced { epoch: Epoch(9) },
    ];
    for state in states {
        let report = ReplicaReport {
            replica: "shop/carts/1".parse().expect("a valid id"),
            generation: Generation(1),
            epoch: Epoch(2),
            image: Digest::of(b"image"),
            state: state.clone(),
            next: Some((Generation(2), state)),
        };
        assert_eq!(ReplicaReport::try_from(v1::ReplicaReport::from(report.clone())), Ok(report));
    }
    let unknown = v1::ReplicaState { word: "confused".to_owned(), ..Default::default() };
    assert_eq!(ReplicaState::try_from(unknown).expect_err("no such state").field, "word");
}

#[test]
fn hosts_images_and_meters_survive_the_wire() {
    let host = HostSpec {
        id: "a".parse().expect("a valid name"),
        ingress: "127.0.0.1:1".to_owned(),
        api: "127.0.0.1:2".to_owned(),
        cpu: hvm_types::CpuMhz(4000),
        memory: 2048,
        attributes: [("zone".to_owned(), "b".to_owned())].into(),
        store: Some("store-1".parse().expect("a valid name")),
    };
    assert_eq!(HostSpec::try_from(v1::HostSpec::from(host.clone())), Ok(host));

    let image = ImageDocument {
        manifest: Digest::of(b"manifest"),
        config: Digest::of(b"config"),
        index: "{}".to_owned(),
        blobs: vec![BlobRef { digest: Digest::of(b"config"), size: 6 }],
        app: "shop".parse().expect("a valid name"),
        version: "1.2.3".parse().expect("a valid version"),
    };
    assert_eq!(ImageDocument::try_from(v1::Image::from(image.clone())), Ok(image));

    let meter = Meter { cpu: Duration::from_nanos(5), refused: 3, sent_bytes: 9, ..Meter::default() };
    assert_eq!(Meter::from(v1::Meter::from(&meter)), meter);
}
