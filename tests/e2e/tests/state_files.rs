//! The state of a ledger goes into files while transfers go on, and comes back out of them: here, and in another
//! installation.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use e2e::{Client, Daemon, Role, Workshop};
use serde_json::Value;

const BOOKS: u32 = 12;

fn deployed(workshop: &Workshop, data: &str) -> Daemon {
    let server = Daemon::start(&Role::Dev { trust: workshop.trust() }, &workshop.path(data));
    server.deploy(&workshop.path("ledger.yaml"));
    server
}

fn transfer(client: &Client, server: &Daemon, book: u32, key: &str) -> u16 {
    let url = format!("{}/books/book-{book}/transfers", server.ingress);
    let body = r#"{"from": "bank", "to": "alice", "amount": 5}"#;
    client.post(&url, &[("idempotency-key", key)], body).expect("an answer").status.as_u16()
}

/// Transfers of a book, of which every one must have moved its money.
fn transfers(client: &Client, server: &Daemon, book: u32) -> u64 {
    let book_url = format!("{}/books/book-{book}", server.ingress);
    let sum: Value =
        serde_json::from_str(&client.get(&format!("{book_url}/sum")).expect("an answer").ok()).expect("JSON");
    assert_eq!(sum["sum"], 0, "{sum}");
    let transfers = sum["transfers"].as_u64().expect("a number");
    let alice = client.get(&format!("{book_url}/accounts/alice")).expect("an answer").ok();
    let alice: Value = serde_json::from_str(&alice).expect("JSON");
    assert_eq!(alice["balance"].as_u64(), Some(transfers * 5), "book {book}");
    transfers
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON")
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry"));
    let mut names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn a_snapshot_under_load_is_whole_and_becomes_the_same_ledger_elsewhere() {
    let workshop = ledger();
    let server = deployed(&workshop, "data");
    let client = Client::new();
    for book in 0..BOOKS {
        assert_eq!(transfer(&client, &server, book, &format!("first-{book}")), 201);
    }
    let folder = workshop.path("backup");
    let (stop, written) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                assert_eq!(transfer(&client, &server, number % BOOKS, &format!("load-{number}")), 201);
                written.fetch_add(1, Ordering::Relaxed);
            }
        });
        let said = server.hvm(&[&"state", &"snapshot", &"ledger/books", &"-o", &folder]).success();
        assert!(said.contains("8 partitions in"), "{said}");
        stop.store(true, Ordering::Relaxed);
    });
    assert!(written.load(Ordering::Relaxed) > 0, "nothing was written beside the snapshot");
    let mut expected: Vec<_> = (0..8).map(|index| format!("ledger.books.{index}.hvmstate")).collect();
    expected.push("manifest.json".to_owned());
    assert_eq!(names_in(&folder), expected);
    let mode = fs::metadata(folder.join(&expected[0])).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    // It is whole, and says where it comes from; what is changed or cut is found.
    let checked = json(&server.hvm(&[&"state", &"check", &folder, &"--json"]).success());
    let of = |index: usize| &checked.as_array().expect("a list")[index];
    assert_eq!((&of(3)["partition"], &of(3)["app"]), (&"ledger/books/3".into(), &"ledger 1.0.0".into()));
    let damaged = workshop.path("damaged.hvmstate");
    let mut bytes = fs::read(folder.join(&expected[3])).expect("a file");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    fs::write(&damaged, &bytes).expect("a file");
    let said = server.hvm(&[&"state", &"check", &damaged]).refusal();
    assert!(said.contains("damaged at byte"), "{said}");
    fs::write(&damaged, &bytes[..middle]).expect("a file");
    let said = server.hvm(&[&"state", &"import", &"ledger/books/3", &damaged, &"--replace"]).refusal();
    assert!(said.contains(&format!("cut off at byte {middle}")), "{said}");

    // Elsewhere the same app is deployed afresh and takes the files.
    let other = deployed(&workshop, "other");
    for index in 0..8 {
        let file = folder.join(format!("ledger.books.{index}.hvmstate"));
        let _ = other.hvm(&[&"state", &"import", &format!("ledger/books/{index}"), &file]).success();
    }
    let mut there = 0;
    for book in 0..BOOKS {
        let (here, now) = (transfers(&client, &server, book), transfers(&client, &other, book));
        assert!(now >= 1 && now <= here, "book {book}: {now} there, {here} here");
        // A command that was applied before is answered as it was, not applied again.
        assert_eq!(transfer(&client, &other, book, &format!("first-{book}")), 201);
        assert_eq!(transfers(&client, &other, book), now);
        there += now;
    }
    let listed = json(&other.hvm(&[&"state", &"ls", &"ledger", &"--json"]).success());
    let listed = listed.as_array().expect("a list");
    let records: u64 = listed.iter().map(|one| one["sequence"].as_u64().expect("a number")).sum();
    assert_eq!((listed.len(), records), (8, there), "each record is one transfer");
    let checked = json(&other.hvm(&[&"state", &"check", &"ledger", &"--json"]).success());
    assert!(checked.as_array().expect("a list").iter().all(|one| one["problem"].is_null()), "{checked}");

    // After a crash it is still there, and everything can be written again.
    other.kill();
    let other = Daemon::start(&Role::Dev { trust: workshop.trust() }, &workshop.path("other"));
    e2e::eventually("the ledger serves again", || {
        let answer = client.get(&format!("{}/books/book-0/sum", other.ingress))?;
        if answer.status == 200 { Ok(()) } else { Err(answer.status.to_string()) }
    });
    for book in 0..BOOKS {
        let now = transfers(&client, &other, book);
        assert_eq!(transfer(&client, &other, book, &format!("later-{book}")), 201);
        assert_eq!(transfers(&client, &other, book), now + 1);
    }
}

#[test]
fn a_partition_goes_back_to_an_export_only_where_that_is_asked_for() {
    let workshop = ledger();
    let server = deployed(&workshop, "data");
    let client = Client::new();
    for number in 0..5 {
        assert_eq!(transfer(&client, &server, 0, &format!("early-{number}")), 201);
    }
    let stored = json(&server.hvm(&[&"state", &"ls", &"--json"]).success());
    let used = |one: &&Value| one["sequence"].as_u64() > Some(0);
    let one = stored.as_array().expect("a list").iter().find(used).expect("a partition with records");
    let partition = one["partition"].as_str().expect("a name").to_owned();
    assert_eq!((&one["sequence"], &one["answers"], &one["host"]), (&5.into(), &5.into(), &"dev".into()));
    let file = workshop.path("five.hvmstate");
    let said = server.hvm(&[&"state", &"export", &partition, &"-o", &file]).success();
    assert!(said.contains("at sequence 5"), "{said}");
    let said = server.hvm(&[&"state", &"export", &partition, &"-o", &file]).refusal();
    assert!(said.contains("already there"), "{said}");
    for number in 0..3 {
        assert_eq!(transfer(&client, &server, 0, &format!("late-{number}")), 201);
    }

    let said = server.hvm(&[&"state", &"import", &partition, &file]).refusal();
    assert!(said.contains("has state of its own, 8 records"), "{said}");
    assert_eq!(transfers(&client, &server, 0), 8);
    let said = server.hvm(&[&"state", &"import", &partition, &file, &"--replace"]).success();
    assert!(said.contains("goes on from sequence 9"), "numbers never go back: {said}");
    assert_eq!(transfers(&client, &server, 0), 5);
    // What the export knew is not applied again; what came later never happened.
    assert_eq!(transfer(&client, &server, 0, "early-4"), 201);
    assert_eq!(transfers(&client, &server, 0), 5);
    assert_eq!(transfer(&client, &server, 0, "late-0"), 201);
    assert_eq!(transfers(&client, &server, 0), 6);

    let index: u32 = partition.rsplit('/').next().and_then(|index| index.parse().ok()).expect("a number");
    let neighbour = format!("ledger/books/{}", (index + 1) % 8);
    let said = server.hvm(&[&"state", &"import", &neighbour, &file]).refusal();
    assert!(said.contains("whose keys do not belong to"), "{said}");
    let said = server.hvm(&[&"state", &"import", &"nobody/books/0", &file]).refusal();
    assert!(said.contains("no host has state of"), "{said}");
    let said = server.hvm(&[&"state", &"check", &"nobody"]).refusal();
    assert!(said.contains("neither a file nor"), "{said}");
    assert_eq!(server.hvm(&[&"state", &"export", &partition]).code, 2, "wrong usage");

    // Stopped, its state is still there and can be taken away.
    let _ = server.hvm(&[&"stop", &"ledger"]).success();
    let stopped = workshop.path("stopped.hvmstate");
    let said = server.hvm(&[&"state", &"export", &partition, &"-o", &stopped, &"--json"]).success();
    assert!(json(&said)["sequence"].as_u64() >= Some(10), "{said}");
    assert_eq!(server.terminate(), 0);
}

/// A workshop with the ledger in it.
fn ledger() -> Workshop {
    let workshop = Workshop::new();
    let _ = workshop.ledger();
    workshop
}
