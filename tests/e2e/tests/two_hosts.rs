//! One scheduler and two agents, each a process of its own, talking over loopback.

use std::collections::BTreeMap;

use e2e::{Client, Daemon, Role, Workshop, eventually};
use serde_json::Value;

const BOOKS: u32 = 24;

/// Which host runs each partition, with the epoch of its ownership, where all 8 serve.
fn owners(status: &Value) -> Result<BTreeMap<u64, (String, u64)>, String> {
    let replicas = status[0]["groups"][0]["replicas"].as_array().ok_or("no replicas yet")?;
    let owners: BTreeMap<u64, (String, u64)> = replicas
        .iter()
        .filter(|replica| replica["observed"]["state"]["state"] == "ready")
        .filter_map(|replica| {
            let host = replica["host"].as_str()?.to_owned();
            Some((replica["index"].as_u64()?, (host, replica["observed"]["epoch"].as_u64()?)))
        })
        .collect();
    if owners.len() == 8 { Ok(owners) } else { Err(format!("{} of 8 serve", owners.len())) }
}

fn transfer(client: &Client, ingress: &str, book: u32, key: &str) {
    let url = format!("{ingress}/books/book-{book}/transfers");
    let body = r#"{"from": "bank", "to": "alice", "amount": 5}"#;
    let answer = client.post(&url, &[("idempotency-key", key)], body).expect("an answer");
    assert!(answer.status.is_success(), "{}: {}", answer.status, answer.body);
}

fn sum_is_zero(client: &Client, ingress: &str, book: u32) {
    let answer = client.get(&format!("{ingress}/books/book-{book}/sum")).expect("an answer").ok();
    let sum: Value = serde_json::from_str(&answer).expect("JSON");
    assert_eq!(sum["sum"], 0, "{answer}");
}

fn balance(client: &Client, ingress: &str, book: u32) -> i64 {
    let answer = client.get(&format!("{ingress}/books/book-{book}/accounts/alice")).expect("an answer").ok();
    let account: Value = serde_json::from_str(&answer).expect("JSON");
    account["balance"].as_i64().expect("a balance")
}

#[test]
fn two_hosts_share_the_partitions_and_outlive_the_scheduler() {
    let workshop = Workshop::new();
    let file = workshop.ledger();
    let agent = |host: &str, scheduler: &str| {
        let role =
            Role::Agent { host: host.to_owned(), scheduler: scheduler.to_owned(), trust: workshop.trust() };
        Daemon::start(&role, &workshop.path(host))
    };
    let scheduler_data = workshop.path("scheduler");
    let scheduler = Daemon::start(&Role::Scheduler { api: "127.0.0.1:0".to_owned() }, &scheduler_data);
    let first = agent("first", &scheduler.api);
    let second = agent("second", &scheduler.api);
    eventually("both hosts have joined", || {
        let hosts = scheduler.hvm(&[&"hosts", &"--json"]).success();
        let hosts: Value = serde_json::from_str(&hosts).expect("JSON");
        if hosts.as_array().is_some_and(|hosts| hosts.len() == 2) { Ok(()) } else { Err(hosts.to_string()) }
    });
    scheduler.deploy(&file);
    let before = owners(&scheduler.status()).expect("deploy waits until all serve");
    for host in ["first", "second"] {
        assert!(before.values().any(|(owner, _)| owner == host), "{host} has a part: {before:?}");
    }

    // Whichever ingress is asked, the owner answers.
    let client = Client::new();
    for book in 0..BOOKS {
        let (here, there) =
            if book % 2 == 0 { (&first.ingress, &second.ingress) } else { (&second.ingress, &first.ingress) };
        transfer(&client, here, book, &format!("first-{book}"));
        transfer(&client, there, book, &format!("first-{book}"));
        assert_eq!(balance(&client, there, book), 5, "one key is applied once, whoever is asked");
    }

    // Without the scheduler both go on serving.
    let api = scheduler.api.clone();
    scheduler.kill();
    for book in 0..BOOKS {
        transfer(&client, &first.ingress, book, &format!("second-{book}"));
        assert_eq!(balance(&client, &second.ingress, book), 10);
        sum_is_zero(&client, &second.ingress, book);
    }

    // With it back, nothing restarts: the same owners in the same epochs, with what they hold in memory.
    let scheduler = Daemon::start(&Role::Scheduler { api: api.clone() }, &scheduler_data);
    let after = eventually("the scheduler knows again what runs", || owners(&scheduler.status()));
    assert_eq!(after, before);
    for book in 0..BOOKS {
        assert_eq!(balance(&client, &first.ingress, book), 10);
    }

    // An agent that is killed comes back with its state, without the scheduler's help.
    scheduler.kill();
    first.kill();
    let first = agent("first", &api);
    eventually("the first host serves again", || {
        (0..BOOKS).try_for_each(|book| {
            let answer = client.get(&format!("{}/books/book-{book}/sum", first.ingress))?;
            if answer.status == 200 { Ok(()) } else { Err(format!("book {book}: {}", answer.status)) }
        })
    });
    for book in 0..BOOKS {
        assert_eq!(balance(&client, &first.ingress, book), 10);
    }
}
