//! What every coordination store must do, run on each store there is.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use hvm_scheduler::store::{
    Change, CoordinationStore, EmbeddedStore, MAX_OPERATIONS, MAX_TRANSACTION_BYTES, Revision, StoreError,
    Transaction, Write,
};

/// Makes and reopens stores of one kind.
trait Factory {
    type Store: CoordinationStore;
    /// A new, empty store.
    fn create() -> Self;
    /// Opens it, or opens it again.
    fn open(&self) -> Self::Store;
}

struct Embedded(tempfile::TempDir);

impl Factory for Embedded {
    type Store = EmbeddedStore;

    fn create() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory"))
    }

    fn open(&self) -> EmbeddedStore {
        EmbeddedStore::open(self.0.path()).expect("the store opens")
    }
}

const PATIENCE: Duration = Duration::from_secs(60);
/// Long enough to be used first, on a busy machine too.
const SHORT: Duration = Duration::from_secs(2);

fn put(key: &str, value: &str) -> Write {
    Write::Put { key: key.to_owned(), value: Bytes::copy_from_slice(value.as_bytes()), lease: None }
}

fn delete(key: &str) -> Write {
    Write::Delete { key: key.to_owned() }
}

async fn write(store: &impl CoordinationStore, writes: Vec<Write>) -> Revision {
    store.transact(Transaction { expects: vec![], writes }).await.expect("the write succeeds")
}

async fn value(store: &impl CoordinationStore, key: &str) -> Option<String> {
    let entry = store.get(key).await.expect("the read succeeds")?;
    Some(String::from_utf8(entry.value.to_vec()).expect("text was written"))
}

async fn what_is_written_is_read_back<F: Factory>() {
    let factory = F::create();
    let store = factory.open();
    assert_eq!(value(&store, "a").await, None);
    let first = write(&store, vec![put("a", "1"), put("b", "2")]).await;
    let second = write(&store, vec![put("a", "3"), delete("b"), delete("never-there")]).await;
    assert!(second > first);
    assert_eq!(value(&store, "a").await.as_deref(), Some("3"));
    assert_eq!(value(&store, "b").await, None);
    assert_eq!(store.get("a").await.expect("readable").map(|entry| entry.revision), Some(second));
}

async fn a_listing_is_sorted_and_holds_its_prefix_only<F: Factory>() {
    let factory = F::create();
    let store = factory.open();
    let writes = ["hosts/b", "hosts/a", "host", "hosts0", "images/x"].map(|key| put(key, key));
    let revision = write(&store, writes.to_vec()).await;
    let listing = store.list("hosts/").await.expect("readable");
    let keys: Vec<_> = listing.entries.iter().map(|entry| entry.key.as_str()).collect();
    assert_eq!(keys, ["hosts/a", "hosts/b"]);
    assert_eq!(listing.revision, revision);
    assert_eq!(store.list("").await.expect("readable").entries.len(), 5);
}

async fn a_transaction_whose_expectation_fails_writes_nothing<F: Factory>() {
    let factory = F::create();
    let store = factory.open();
    let old = write(&store, vec![put("a", "1")]).await;
    let new = write(&store, vec![put("a", "2")]).await;
    for (key, expected) in [("a", Some(old)), ("a", None), ("missing", Some(new))] {
        let transaction = Transaction {
            expects: vec![("a".to_owned(), Some(new)), (key.to_owned(), expected)],
            writes: vec![put("b", "x"), put("a", "x")],
        };
        let error = store.transact(transaction).await.expect_err("the expectation is wrong");
        assert!(matches!(&error, StoreError::Conflict { key: named } if named == key), "{error}");
    }
    assert_eq!(value(&store, "a").await.as_deref(), Some("2"));
    assert_eq!(value(&store, "b").await, None);
    let transaction = Transaction {
        expects: vec![("a".to_owned(), Some(new)), ("b".to_owned(), None)],
        writes: vec![put("b", "made"), delete("a")],
    };
    store.transact(transaction).await.expect("all is as expected");
    assert_eq!(value(&store, "b").await.as_deref(), Some("made"));
    assert_eq!(value(&store, "a").await, None);
}

async fn of_many_writers_with_one_expectation_one_wins<F: Factory>() {
    let factory = F::create();
    let store = Arc::new(factory.open());
    let revision = write(&*store, vec![put("a", "0")]).await;
    let writers = (0..16).map(|i| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            let expects = vec![("a".to_owned(), Some(revision))];
            store.transact(Transaction { expects, writes: vec![put("a", &i.to_string())] }).await.is_ok()
        })
    });
    let mut winners = 0;
    for writer in writers.collect::<Vec<_>>() {
        winners += u32::from(writer.await.expect("no writer panics"));
    }
    assert_eq!(winners, 1);
}

async fn limits_are_kept<F: Factory>() {
    let factory = F::create();
    let store = factory.open();
    let attempts = [
        (0..=MAX_OPERATIONS).map(|i| put(&format!("k{i}"), "")).collect(),
        vec![put("large", &"x".repeat(MAX_TRANSACTION_BYTES))],
        vec![put(&"k".repeat(300), "")],
        vec![put("", "")],
        vec![put("twice", "1"), put("twice", "2")],
    ];
    for writes in attempts {
        let error = store.transact(Transaction { expects: vec![], writes }).await.expect_err("too large");
        assert!(matches!(error, StoreError::TooLarge { .. }), "{error}");
    }
    assert!(store.list("").await.expect("readable").entries.is_empty());
    write(&store, (0..MAX_OPERATIONS).map(|i| put(&format!("k{i}"), "")).collect()).await;
}

async fn a_watch_sees_every_change_once_and_in_order<F: Factory>() {
    let factory = F::create();
    let store = factory.open();
    write(&store, vec![put("a/before", "")]).await;
    let start = store.list("a/").await.expect("readable").revision;
    write(&store, vec![put("a/1", "past"), put("b/1", "other")]).await;
    let mut watch = store.watch("a/", start).await.expect("the past is remembered");
    write(&store, vec![put("a/2", "x"), delete("a/1")]).await;
    write(&store, vec![put("b/2", "other")]).await;
    write(&store, vec![delete("a/2")]).await;
    let mut seen = Vec::new();
    while seen.len() < 4 {
        let next = tokio::time::timeout(PATIENCE, watch.next()).await.expect("changes arrive");
        let change = next.expect("the watch goes on").expect("it did not fall behind");
        let verb = if matches!(change, Change::Put(_)) { "put" } else { "delete" };
        seen.push((format!("{verb} {}", change.key()), change.revision()));
    }
    let words: Vec<_> = seen.iter().map(|(word, _)| word.as_str()).collect();
    assert_eq!(words, ["put a/1", "put a/2", "delete a/1", "delete a/2"]);
    assert!(seen.is_sorted_by_key(|(_, revision)| *revision));
}

async fn what_is_written_survives_a_restart<F: Factory>() {
    let factory = F::create();
    let store = factory.open();
    let revision = write(&store, vec![put("a", "1")]).await;
    drop(store);
    let store = factory.open();
    assert_eq!(store.get("a").await.expect("readable").map(|entry| entry.revision), Some(revision));
    assert!(write(&store, vec![put("a", "2")]).await > revision);
}

async fn a_lease_that_is_not_renewed_takes_its_keys_along<F: Factory>() {
    let factory = F::create();
    let store = factory.open();
    let short = store.grant_lease(SHORT).await.expect("granted");
    let long = store.grant_lease(PATIENCE * 10).await.expect("granted");
    let leased =
        |key: &str, lease| Write::Put { key: key.to_owned(), value: Bytes::new(), lease: Some(lease) };
    let written = write(&store, vec![leased("short", short), leased("long", long), put("free", "")]).await;
    assert_eq!(store.get("long").await.expect("readable").and_then(|entry| entry.lease), Some(long));
    let mut watch = store.watch("", written).await.expect("the past is remembered");
    let change = tokio::time::timeout(PATIENCE, watch.next()).await.expect("the lease ends");
    let change = change.expect("the watch goes on").expect("it did not fall behind");
    assert!(matches!(&change, Change::Delete { key, .. } if key == "short"), "{change:?}");
    assert_eq!(value(&store, "short").await, None);
    assert!(value(&store, "long").await.is_some() && value(&store, "free").await.is_some());
    let error = store.renew_lease(short).await.expect_err("it has ended");
    assert!(matches!(error, StoreError::LeaseExpired { .. }), "{error}");
    let transaction = Transaction { expects: vec![], writes: vec![leased("late", short)] };
    assert!(matches!(store.transact(transaction).await, Err(StoreError::LeaseExpired { .. })));
    store.renew_lease(long).await.expect("it holds");
}

async fn a_lease_goes_on_after_a_restart_and_ends<F: Factory>() {
    let factory = F::create();
    let store = factory.open();
    let lease = store.grant_lease(SHORT).await.expect("granted");
    let leased = Write::Put { key: "a".to_owned(), value: Bytes::new(), lease: Some(lease) };
    write(&store, vec![leased]).await;
    drop(store);
    let store = factory.open();
    store.renew_lease(lease).await.expect("a restart counts as a renewal");
    let after = store.list("").await.expect("readable").revision;
    let mut watch = store.watch("", after).await.expect("nothing was missed");
    let change = tokio::time::timeout(PATIENCE, watch.next()).await.expect("the lease ends");
    assert!(matches!(change, Some(Ok(Change::Delete { .. }))), "{change:?}");
    let next = store.grant_lease(Duration::from_secs(1)).await.expect("granted");
    assert!(next > lease, "a lease's number was used twice");
}

macro_rules! suite {
    ($module:ident, $factory:ty: $($case:ident)*) => {
        mod $module {
            $(#[tokio::test]
            async fn $case() {
                super::$case::<$factory>().await;
            })*
        }
    };
}

suite! { embedded, super::Embedded:
    what_is_written_is_read_back
    a_listing_is_sorted_and_holds_its_prefix_only
    a_transaction_whose_expectation_fails_writes_nothing
    of_many_writers_with_one_expectation_one_wins
    limits_are_kept
    a_watch_sees_every_change_once_and_in_order
    what_is_written_survives_a_restart
    a_lease_that_is_not_renewed_takes_its_keys_along
    a_lease_goes_on_after_a_restart_and_ends
}

#[tokio::test]
async fn a_second_store_on_one_directory_is_refused_by_its_name() {
    let factory = Embedded::create();
    let _first = factory.open();
    let error = EmbeddedStore::open(factory.0.path()).expect_err("the directory is taken");
    assert!(matches!(error, StoreError::DirectoryInUse { .. }));
    let text = error.to_string();
    assert!(text.contains(&factory.0.path().display().to_string()), "{text}");
}
