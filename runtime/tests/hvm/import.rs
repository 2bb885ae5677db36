//! State that is imported into a partition while it runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hvm_runtime::UpgradeError;
use hvm_runtime::state::file::{self, FileReader, Origin};
use hvm_runtime::state::{Import, ImportError, ImportHead};
use hvm_types::{Epoch, ReplicaId, ReplicaState, Sequence};

use super::bed::{Bed, first, id, keyed};

/// The state file of a partition.
fn exported(bed: &Bed, id: &ReplicaId) -> Vec<u8> {
    let scan = bed.state.scan(id).expect("a read").expect("it has state");
    file::export(&*scan, id, Origin::default(), Vec::new()).expect("it is exported").0
}

/// An import that was read to its end.
fn read_in(bed: &Bed, id: &ReplicaId, bytes: &[u8]) -> (Box<dyn Import>, ImportHead) {
    let mut import = bed.state.import(id, Epoch(1), true).expect("it begins");
    let mut reader = FileReader::begin(bytes).expect("a file");
    let summary = file::import(&mut reader, &mut *import).expect("it is read");
    (import, (&summary.header.head).into())
}

#[tokio::test]
async fn an_import_takes_the_place_of_the_state_and_no_request_fails() {
    let bed = Arc::new(Bed::with_probe().await);
    bed.post("/kv/set?k=a&v=old", "").await.expect("set");
    let id = first();
    let once = bed.request(&id, keyed("once", "/kv/incr?k=n", "")).await.expect("applied").text();
    let bytes = exported(&bed, &id);
    bed.post("/kv/set?k=a&v=new", "").await.expect("set");
    bed.post("/kv/incr?k=n", "").await.expect("counted");

    let stop = AtomicBool::new(false);
    let (import, head) = read_in(&bed, &id, &bytes);
    let asking = async {
        let mut answers = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            answers.push(bed.get("/kv/get?k=a").await.expect("no query fails").text());
            bed.post("/kv/incr?k=m", "").await.expect("no command fails");
        }
        answers
    };
    let importing = async {
        let imported = bed.hvm.import(&id, import, head).await;
        stop.store(true, Ordering::Relaxed);
        imported
    };
    let (answers, imported) = tokio::join!(asking, importing);
    imported.expect("it is imported");
    assert!(answers.iter().all(|answer| answer == "old" || answer == "new"), "{answers:?}");
    let turned = answers.iter().position(|answer| answer == "old").unwrap_or(answers.len());
    assert!(answers[turned..].iter().all(|answer| answer == "old"), "it went back: {answers:?}");

    assert_eq!(bed.get("/kv/get?k=a").await.expect("a read").text(), "old");
    let again = bed.request(&id, keyed("once", "/kv/incr?k=n", "")).await.expect("answered").text();
    assert_eq!(again, once, "the key was applied before the export");
    assert_eq!(bed.post("/kv/incr?k=n", "").await.expect("counted").text(), "2");
    let status = bed.status(&id).expect("open");
    assert_eq!((status.state, status.epoch), (ReplicaState::Ready, Epoch(1)));
    assert!(status.sequence > Sequence(4), "{:?}", status.sequence);
}

#[tokio::test]
async fn an_import_that_the_engine_refuses_leaves_the_partition_serving() {
    let bed = Bed::with_probe().await;
    bed.post("/kv/set?k=a&v=1", "").await.expect("set");
    let bytes = exported(&bed, &first());
    let (import, head) = read_in(&bed, &first(), &bytes);
    let mut newer = bed.probe(&first()).await;
    newer.epoch = Epoch(2);
    bed.hvm.upgrade(newer).await.expect("a new owner");
    bed.post("/kv/set?k=a&v=2", "").await.expect("set");
    let refused = bed.hvm.import(&first(), import, head).await;
    assert!(matches!(refused, Err(UpgradeError::Import(ImportError::Fenced { .. }))), "{refused:?}");
    assert_eq!(bed.get("/kv/get?k=a").await.expect("a read").text(), "2");
    bed.post("/kv/set?k=a&v=3", "").await.expect("it serves on");

    let nobody = id("test/probe/9");
    let (import, head) = read_in(&bed, &nobody, &bytes);
    let unknown = bed.hvm.import(&nobody, import, head).await;
    assert!(matches!(unknown, Err(UpgradeError::Unknown { .. })), "{unknown:?}");
}
