//! A new version that keeps its state in another layout: it is migrated once, before the first command, or not at all.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use guests_path::Guest;
use http::Method;
use hvm_runtime::state::{CommitRecord, SchemaMark};
use hvm_runtime::{
    Call, CallError, MigrationError, OpenError, PartitionSpec, RequestError, Trap, UpgradeError,
};
use hvm_types::{Epoch, Generation, Period, ReplicaState, SchemaError, Sequence, StateSchema};

use super::bed::{Bed, first, request};

/// The probe with this layout, which migrates from the one before as it is told.
async fn version(bed: &Bed, layout: u32, migrate: &str) -> PartitionSpec {
    let mut spec = bed.probe(&first()).await;
    spec.generation = Generation(layout.into());
    spec.schema = StateSchema { version: layout, migrates_from: (layout > 1).then_some(1) };
    spec.env.insert("migrate".to_owned(), migrate.to_owned());
    spec.env.insert("version".to_owned(), layout.to_string());
    spec
}

async fn get(bed: &Bed, key: &str) -> String {
    bed.get(&format!("/kv/get?k={key}")).await.expect("a read").text()
}

async fn running(bed: &Bed) -> String {
    bed.get("/config?k=version").await.expect("a query").text()
}

/// A partition at layout 1 with `n` at 3.
async fn with_three() -> Bed {
    let bed = Bed::new();
    bed.hvm.open(version(&bed, 1, "").await).await.expect("opened");
    bed.post("/kv/incr?k=n&by=3", "").await.expect("counted");
    bed
}

#[tokio::test]
async fn a_new_layout_is_migrated_once_before_the_first_command() {
    let bed = with_three().await;
    bed.hvm.upgrade(version(&bed, 2, "ok").await).await.expect("upgraded");
    assert_eq!(bed.post("/kv/incr?k=n", "").await.expect("counted").text(), "301");
    assert_eq!(get(&bed, "migrations").await, "1-2 ");
    let sequence = bed.status(&first()).expect("open").sequence;
    assert_eq!(sequence, Sequence(3), "the migration is one record");

    // Neither a second upgrade nor a restart does it again.
    bed.hvm.upgrade(version(&bed, 2, "fail").await).await.expect("there is nothing to migrate");
    let bed = bed.restart().await;
    bed.hvm.open(version(&bed, 2, "fail").await).await.expect("opened");
    assert_eq!((get(&bed, "n").await, get(&bed, "migrations").await), ("301".into(), "1-2 ".into()));

    // The next one, when the partition is opened.
    bed.hvm.close(&first()).await.expect("closed");
    bed.hvm.open(version(&bed, 4, "ok").await).await.expect("opened");
    assert_eq!((get(&bed, "n").await, get(&bed, "migrations").await), ("30100".into(), "1-2 2-4 ".into()));
    bed.hvm.close(&first()).await.expect("closed");
    bed.hvm.open(version(&bed, 4, "fail").await).await.expect("opened");
    assert_eq!(get(&bed, "n").await, "30100");
}

#[tokio::test]
async fn a_migration_under_load_fails_no_request() {
    let bed = Arc::new(with_three().await);
    let done = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (hvm, done) = (bed.hvm.clone(), Arc::clone(&done));
            tokio::spawn(async move {
                let mut applied = 0_u32;
                while !done.load(Ordering::Relaxed) {
                    let answer = hvm.request(&first(), request(Method::POST, "/kv/incr?k=m", "")).await;
                    assert_eq!(answer.expect("no command fails").status(), 200);
                    // Two reads with a pause between see one layout.
                    let query = request(Method::GET, "/kv/get-sleep-get?k=n&ms=2", "");
                    let body = hvm.request(&first(), query).await.expect("no query fails").into_body();
                    let body = body.collect().await.expect("whole");
                    let text = String::from_utf8_lossy(&body).into_owned();
                    let (before, after) = text.split_once(' ').expect("two reads");
                    assert_eq!(before, after);
                    applied += 1;
                }
                applied
            })
        })
        .collect();
    for layout in 2..=6 {
        let mut spec = version(&bed, layout, "ok").await;
        spec.env.insert("migrate-ms".to_owned(), "30".to_owned());
        bed.hvm.upgrade(spec).await.expect("upgraded");
        let mut failing = version(&bed, layout + 1, "fail").await;
        failing.env.insert("migrate-ms".to_owned(), "10".to_owned());
        bed.hvm.upgrade(failing).await.expect_err("it was told to fail");
        assert_eq!(running(&bed).await, layout.to_string());
    }
    done.store(true, Ordering::Relaxed);
    let mut applied = 0;
    for client in clients {
        applied += client.await.expect("a client that saw no failure");
    }
    assert!(applied > 0, "nothing ran during the upgrades");
    assert_eq!(get(&bed, "m").await, applied.to_string());
    assert_eq!(get(&bed, "n").await, format!("3{}", "00".repeat(5)));
}

#[tokio::test]
async fn queries_are_answered_and_commands_wait_while_a_migration_computes() {
    let bed = with_three().await;
    let mut next = version(&bed, 2, "ok").await;
    next.resources.deadline = Period(Duration::from_millis(300));
    let mut spec = version(&bed, 1, "").await;
    spec.resources.deadline = Period(Duration::from_millis(300));
    bed.hvm.upgrade(spec).await.expect("upgraded");
    // It takes longer than a command may.
    next.env.insert("migrate-ms".to_owned(), "600".to_owned());
    let meanwhile = async {
        bed.until(&first(), |status| !status.doing.is_empty()).await;
        let command = bed.post("/kv/incr?k=n", "");
        let query = async {
            let query = (get(&bed, "n").await, running(&bed).await);
            let doing = bed.status(&first()).expect("open").doing;
            let migrates = doing.iter().any(|doing| doing.what == "POST /.well-known/hvm/migrate");
            (query, migrates)
        };
        tokio::join!(command, query)
    };
    let (upgraded, (command, (query, migrates))) = tokio::join!(bed.hvm.upgrade(next), meanwhile);
    upgraded.expect("upgraded");
    assert!(migrates, "the queries were not answered while it computed");
    assert_eq!(query, ("3".to_owned(), "1".to_owned()));
    assert_eq!(command.expect("it has its own time").text(), "301");
}

#[tokio::test]
async fn a_migration_that_fails_changes_nothing_and_the_old_version_serves() {
    let bed = with_three().await;
    let failed = async |change: fn(&mut PartitionSpec), way: &str| {
        let mut spec = version(&bed, 2, way).await;
        spec.resources.migration_deadline = Period(Duration::from_millis(500));
        change(&mut spec);
        let error = bed.hvm.upgrade(spec).await.expect_err("it fails");
        assert_eq!(
            (get(&bed, "n").await.as_str(), running(&bed).await.as_str()),
            ("3", "1"),
            "after {error}"
        );
        assert_eq!(bed.get("/kv/get?k=migrations").await.expect("a read").status(), 404, "after {error}");
        let UpgradeError::Open(OpenError::Migration { source, .. }) = error else { panic!("{error}") };
        assert!(source.to_string().contains("from layout 1 to 2"), "{source}");
        source
    };
    let refused = failed(|_| {}, "fail").await;
    let answered = "status 409: it was told to fail".to_owned();
    assert_eq!(refused, MigrationError::Refused { from: 1, to: 2, answered });
    let limit = Duration::from_millis(500);
    assert_eq!(failed(|_| {}, "loop").await, MigrationError::Deadline { from: 1, to: 2, limit });
    let stopped = async |change: fn(&mut PartitionSpec), way: &str| match failed(change, way).await {
        MigrationError::Stopped { source, .. } => *source,
        other => panic!("{other}"),
    };
    let trapped = stopped(|_| {}, "trap").await;
    assert!(matches!(trapped, RequestError::Trapped { trap: Trap::Wasm { .. } }), "{trapped}");
    let full = stopped(|spec| spec.resources.storage.0 = 1, "ok").await;
    assert!(matches!(full, RequestError::QuotaExceeded { .. }), "{full}");
    let patient: fn(&mut PartitionSpec) =
        |spec| spec.resources.migration_deadline = Period(Duration::from_secs(30));
    let large = failed(patient, "huge").await.to_string();
    assert!(large.contains("what one command writes") && large.contains("is the limit"), "{large}");

    assert_eq!(bed.status(&first()).expect("open").state, ReplicaState::Ready);
    assert_eq!(bed.post("/kv/incr?k=n", "").await.expect("the old version writes").text(), "4");
    bed.hvm.upgrade(version(&bed, 2, "ok").await).await.expect("a mended one");
    assert_eq!((get(&bed, "n").await, running(&bed).await), ("400".into(), "2".into()));
}

#[tokio::test]
async fn what_the_version_does_not_accept_is_refused_before_anything_of_it_runs() {
    let bed = with_three().await;
    bed.hvm.upgrade(version(&bed, 3, "ok").await).await.expect("upgraded");
    for (schema, expected) in [
        (StateSchema { version: 2, migrates_from: Some(1) }, SchemaError::Newer { stored: 3, version: 2 }),
        (StateSchema { version: 4, migrates_from: None }, SchemaError::NoMigration { stored: 3, version: 4 }),
        (
            StateSchema { version: 9, migrates_from: Some(5) },
            SchemaError::TooOld { stored: 3, version: 9, migrates_from: 5 },
        ),
    ] {
        let mut spec = version(&bed, 3, "ok").await;
        spec.schema = schema;
        let refused = Some(expected);
        let reason = |error: OpenError| match error {
            OpenError::Migration { source: MigrationError::Schema(reason), .. } => Some(reason),
            _ => None,
        };
        let error = bed.hvm.upgrade(spec.clone()).await.expect_err("refused");
        let UpgradeError::Open(error) = error else { panic!("{error}") };
        assert_eq!(reason(error), refused);
        assert_eq!(running(&bed).await, "3");
        bed.hvm.close(&first()).await.expect("closed");
        let error = bed.hvm.open(spec).await.expect_err("refused");
        assert_eq!(reason(error), refused);
        assert!(bed.status(&first()).is_none(), "something of it is left");
        bed.hvm.open(version(&bed, 3, "ok").await).await.expect("opened");
    }
    assert_eq!(get(&bed, "migrations").await, "1-3 ");
}

#[tokio::test]
async fn a_partition_that_began_with_a_layout_is_in_it() {
    let bed = Bed::new();
    bed.hvm.open(version(&bed, 5, "fail").await).await.expect("there is nothing to migrate");
    // Without a record there is still no layout.
    bed.hvm.close(&first()).await.expect("closed");
    bed.hvm.open(version(&bed, 2, "fail").await).await.expect("opened");
    bed.post("/kv/incr?k=n&by=3", "").await.expect("counted");
    bed.hvm.upgrade(version(&bed, 3, "ok").await).await.expect("upgraded");
    assert_eq!((get(&bed, "n").await, get(&bed, "migrations").await), ("300".into(), "2-3 ".into()));
}

#[tokio::test]
async fn a_new_owner_migrates_too_and_a_failure_leaves_it_with_the_old_version() {
    let bed = with_three().await;
    let mut failing = version(&bed, 2, "fail").await;
    failing.epoch = Epoch(2);
    bed.hvm.upgrade(failing).await.expect_err("it was told to fail");
    let status = bed.status(&first()).expect("open");
    assert_eq!((status.epoch, status.generation), (Epoch(2), Generation(1)));
    assert_eq!(bed.post("/kv/incr?k=n", "").await.expect("counted").text(), "4");
    let mut spec = version(&bed, 2, "ok").await;
    spec.epoch = Epoch(3);
    bed.hvm.upgrade(spec).await.expect("upgraded");
    assert_eq!((get(&bed, "n").await, running(&bed).await), ("400".into(), "2".into()));
}

#[tokio::test]
async fn a_migration_that_is_there_already_is_not_applied_again() {
    let bed = with_three().await;
    // As after a commit of which nobody heard.
    let state = bed.state.open(&first(), Epoch(1)).expect("the same owner");
    let mut spec = version(&bed, 2, "ok").await;
    spec.env.insert("migrate-ms".to_owned(), "300".to_owned());
    let committed = async {
        bed.until(&first(), |status| !status.doing.is_empty()).await;
        let mut writes = hvm_runtime::state::WriteSet::default();
        writes.put("default", "n", bytes::Bytes::from_static(b"777"));
        let record = CommitRecord {
            writes,
            idempotency: None,
            exchange: None,
            schema: Some(SchemaMark::Migrated(2)),
            meter: hvm_types::Meter::default(),
            quota: hvm_types::ByteSize::mib(1),
            retention: hvm_runtime::state::Retention::default(),
            unix_millis: 1,
        };
        state.commit(record).await.expect("committed");
    };
    let (upgraded, ()) = tokio::join!(bed.hvm.upgrade(spec), committed);
    upgraded.expect("upgraded");
    assert_eq!(get(&bed, "n").await, "777");
}

#[tokio::test]
async fn closing_breaks_a_migration_off_and_nothing_of_it_comes_after() {
    let bed = with_three().await;
    let mut spec = version(&bed, 2, "loop").await;
    spec.resources.migration_deadline = Period(Duration::from_secs(3_600));
    let close = async {
        // A request that was answered may still be on the list.
        bed.until(&first(), |status| status.doing.iter().any(|doing| doing.what.ends_with("/migrate"))).await;
        bed.hvm.close(&first()).await
    };
    let (upgraded, closed) = tokio::join!(bed.hvm.upgrade(spec), close);
    closed.expect("closed");
    let source = Box::new(RequestError::Stopped);
    let source = MigrationError::Stopped { from: 1, to: 2, source };
    assert_eq!(upgraded, Err(UpgradeError::Open(OpenError::Migration { id: first(), source })));
    bed.hvm.open(version(&bed, 1, "").await).await.expect("opened");
    assert_eq!((get(&bed, "n").await, running(&bed).await), ("3".into(), "1".into()));
}

#[tokio::test]
async fn only_the_host_can_ask_for_a_migration() {
    let bed = with_three().await;
    bed.hvm.upgrade(version(&bed, 2, "ok").await).await.expect("upgraded");
    for path in ["/.well-known/hvm/migrate", "/%2ewell-known/hvm/migrate", "/a/../.well-known//hvm/migrate"] {
        let error = bed.post(path, "from=1&to=2").await.expect_err("refused");
        assert_eq!((&error, error.status().as_u16()), (&RequestError::Reserved, 403), "{path}");
    }
    assert_eq!(get(&bed, "migrations").await, "1-2 ");
}

#[tokio::test]
async fn a_typed_component_migrates_by_its_own_function() {
    let bed = Bed::new();
    let spec = async |schema| {
        let mut spec = PartitionSpec::new(first(), bed.module(Guest::Typed).await);
        spec.grants.keyvalue = vec!["default".to_owned()];
        spec.schema = schema;
        spec
    };
    bed.hvm.open(spec(StateSchema::default()).await).await.expect("opened");
    bed.hvm.call(&first(), Call::command("set", "v1 ")).await.expect("set");
    let second = spec(StateSchema { version: 2, migrates_from: Some(1) }).await;
    bed.hvm.upgrade(second).await.expect("upgraded");
    assert_eq!(bed.hvm.call(&first(), Call::query("get", "")).await.expect("read"), "v1 1-2 ");
    let asked = bed.hvm.call(&first(), Call::command(".well-known/hvm/migrate", "from=1&to=2")).await;
    assert_eq!(asked, Err(CallError::Request(RequestError::Reserved)));
}

#[tokio::test]
async fn state_in_another_layout_is_not_imported_under_a_version_that_runs() {
    let bed = with_three().await;
    let scan = bed.state.scan(&first()).expect("a read").expect("it has state");
    let origin = hvm_runtime::state::file::Origin::default();
    let (file, _) = hvm_runtime::state::file::export(&*scan, &first(), origin, Vec::new()).expect("exported");
    bed.hvm.upgrade(version(&bed, 2, "ok").await).await.expect("upgraded");
    let mut import = bed.state.import(&first(), Epoch(1), true).expect("it begins");
    let mut reader = hvm_runtime::state::file::FileReader::begin(file.as_slice()).expect("a file");
    let summary = hvm_runtime::state::file::import(&mut reader, &mut *import).expect("it is read");
    let refused = bed.hvm.import(&first(), import, (&summary.header.head).into()).await;
    assert_eq!(refused, Err(UpgradeError::ImportLayout { id: first(), imported: 1, known: 2 }));
    assert_eq!(get(&bed, "n").await, "300");
}
