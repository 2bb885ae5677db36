//! A disk whose syncs fail or hang: nothing is acknowledged that is not on it, and who only reads is not disturbed.

use brittle_disk::{BrittleDisk, SyncRule};
use e2e::{Answer, Client, Daemon, Role, Workshop, eventually};

/// The files of the state's database.
const DATABASE: &str = "agent/state/fjall";
const BOOKS: usize = 6;

/// The ledger on a brittle disk. What is dropped first stands first.
struct Bed {
    server: Daemon,
    disk: BrittleDisk,
    workshop: Workshop,
}

impl Bed {
    fn new() -> Self {
        let workshop = Workshop::new();
        let file = workshop.ledger();
        let data = workshop.path("data");
        std::fs::create_dir(&data).expect("a place to mount at");
        let disk =
            BrittleDisk::mount(&data).expect("this test mounts with FUSE and needs /dev/fuse and root");
        let server = Daemon::start(&Role::Dev { trust: workshop.trust() }, &data);
        server.deploy(&file);
        Self { server, disk, workshop }
    }

    /// Kills the server, cuts the power where wanted, and starts it again.
    fn restart(self, with_cut: bool) -> Self {
        let Self { server, disk, workshop } = self;
        server.kill();
        if with_cut {
            // Nothing of what was not synced is kept.
            disk.disk().cut_power(&mut |_| 0);
        }
        let server = Daemon::start(&Role::Dev { trust: workshop.trust() }, &workshop.path("data"));
        Self { server, disk, workshop }
    }

    fn url(&self, book: usize, what: &str) -> String {
        format!("{}/books/b{book}/{what}", self.server.ingress)
    }
}

/// Pays one to alice. A key belongs to a partition, which may have several books.
fn pay(client: &Client, url: &str, key: &str) -> Answer {
    let body = r#"{"from": "bank", "to": "alice", "amount": 1}"#;
    client.post(url, &[("idempotency-key", key)], body).expect("an answer")
}

/// How many transfers a book shows, once its partition answers.
fn transfers(client: &Client, url: &str) -> u64 {
    eventually("the book is read", || {
        let answer = client.get(url)?;
        if answer.status == 503 {
            return Err(answer.body);
        }
        let sum: serde_json::Value = serde_json::from_str(&answer.ok()).map_err(|error| error.to_string())?;
        assert_eq!(sum["sum"], 0);
        sum["transfers"].as_u64().ok_or_else(|| sum.to_string())
    })
}

#[test]
fn after_a_failed_sync_nothing_is_acknowledged_until_a_restart() {
    let mut bed = Bed::new();
    let client = Client::new();
    let mut acknowledged = 0;
    for (round, with_cut) in [true, false, true].into_iter().enumerate() {
        let (url, sum) = (bed.url(0, "transfers"), bed.url(0, "sum"));
        assert_eq!(
            transfers(&client, &sum),
            acknowledged,
            "round {round}: what was acknowledged, and nothing else"
        );
        assert!(pay(&client, &url, &format!("before-{round}")).status.is_success());
        acknowledged += 1;

        bed.disk.disk().rule(SyncRule::FailOnce(DATABASE.to_owned()));
        for attempt in 0..20 {
            let answer = pay(&client, &url, &format!("lost-{round}"));
            assert!(answer.status.is_server_error(), "attempt {attempt}: {} {}", answer.status, answer.body);
            let other = pay(&client, &bed.url(1, "transfers"), &format!("other-{round}-{attempt}"));
            assert!(other.status.is_server_error(), "the other partitions' commits are on the same file");
        }
        assert_eq!(
            bed.disk.disk().failed(),
            round + 1,
            "one sync failed, and those after it would have passed"
        );
        assert_eq!(transfers(&client, &sum), acknowledged, "what was not acknowledged is not shown");
        bed = bed.restart(with_cut);
        let (url, sum) = (bed.url(0, "transfers"), bed.url(0, "sum"));
        assert_eq!(transfers(&client, &sum), acknowledged);
        assert!(pay(&client, &url, &format!("lost-{round}")).status.is_success(), "its key is free");
        acknowledged += 1;
    }
}

#[test]
fn while_a_sync_hangs_nothing_is_acknowledged_and_queries_go_on() {
    let bed = Bed::new();
    let client = Client::new();
    let disk = bed.disk.disk().clone();
    for book in 0..BOOKS {
        let answer = pay(&client, &bed.url(book, "transfers"), &format!("first-{book}"));
        assert!(answer.status.is_success(), "{} {}", answer.status, answer.body);
    }
    disk.rule(SyncRule::Hold(DATABASE.to_owned()));
    let asked: Vec<_> = (0..BOOKS)
        .map(|book| {
            let url = bed.url(book, "transfers");
            // A client of its own: one client's calls share its thread.
            std::thread::spawn(move || pay(&Client::new(), &url, &format!("second-{book}")))
        })
        .collect();
    eventually("a sync hangs", || if disk.held() > 0 { Ok(()) } else { Err("none".to_owned()) });
    for _ in 0..20 {
        for book in 0..BOOKS {
            assert_eq!(transfers(&client, &bed.url(book, "sum")), 1, "queries show what is on the disk");
        }
    }
    assert!(asked.iter().all(|call| !call.is_finished()), "no command is acknowledged");
    disk.let_go();
    for call in asked {
        let answer = call.join().expect("an answer");
        assert!(answer.status.is_success(), "{} {}", answer.status, answer.body);
    }
    for book in 0..BOOKS {
        assert_eq!(transfers(&client, &bed.url(book, "sum")), 2);
    }
}
