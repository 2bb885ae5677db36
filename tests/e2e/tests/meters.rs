//! Meters over a kill: at most one window is lost, and nothing counts twice.

use e2e::{Client, Daemon, Role, Workshop, eventually};
use serde_json::Value;

/// Requests that ended well, of all partitions and of the host itself.
fn succeeded(usage: &Value) -> u64 {
    let partitions = usage["partitions"].as_array().expect("partitions").iter();
    let of = |meter: &Value| meter["succeeded"].as_u64().expect("a count");
    partitions.map(|partition| of(&partition["meter"])).sum::<u64>() + of(&usage["rest"])
}

fn shown(server: &Daemon) -> u64 {
    succeeded(&usage(server))
}

fn usage(server: &Daemon) -> Value {
    let usage = server.hvm(&[&"usage", &"--json"]).success();
    let usage: Value = serde_json::from_str(&usage).expect("JSON");
    usage[0].clone()
}

/// Checks that the rows of a table and of each of its windows sum to what the process used.
fn check_sums(server: &Daemon) {
    let usage = server.hvm(&[&"usage", &"--json", &"--windows", &"--last", &"10m"]).success();
    let usage: Value = serde_json::from_str(&usage).expect("JSON");
    let windows = usage[0]["windows"].as_array().expect("windows");
    assert!(!windows.is_empty());
    for table in windows.iter().chain([&usage[0]]) {
        let rows = table["partitions"].as_array().expect("rows").iter().map(|row| &row["meter"]);
        let cpu = |meter: &Value| meter["cpu_seconds"].as_f64().expect("seconds");
        let sum: f64 = rows.chain([&table["rest"]]).map(cpu).sum();
        let process = table["process_cpu_seconds"].as_f64().expect("seconds");
        assert!((sum - process).abs() < 1e-6, "{sum} s in rows of {process} s: {table}");
    }
}

/// Waits until everything that was used until now is durable.
fn until_durable(server: &Daemon) {
    let now = usage(server)["until_unix_millis"].as_u64().expect("a time");
    eventually("the window is durable", || match usage(server)["durable_unix_millis"].as_u64() {
        Some(durable) if durable >= now => Ok(()),
        other => Err(format!("durable until {other:?}, which is before {now}")),
    });
}

/// `count` commands, and as many queries, which no commit carries the meter of.
fn ask(client: &Client, server: &Daemon, round: &str, count: u64) {
    for number in 0..count {
        let book = format!("{}/books/book-{}", server.ingress, number % 5);
        let key = format!("{round}-{number}");
        let body = r#"{"from": "bank", "to": "alice", "amount": 5}"#;
        let answer = client.post(&format!("{book}/transfers"), &[("idempotency-key", &key)], body);
        let answer = answer.expect("an answer");
        assert!(answer.status.is_success(), "{}: {}", answer.status, answer.body);
        let _ = client.get(&format!("{book}/sum")).expect("an answer").ok();
    }
}

#[test]
fn a_kill_loses_at_most_the_last_window_of_the_meters_and_counts_nothing_twice() {
    let workshop = Workshop::new();
    let file = workshop.ledger();
    let role = Role::Dev { trust: workshop.trust() };
    let data = workshop.path("data");
    let client = Client::new();

    let server = Daemon::start(&role, &data);
    server.deploy(&file);
    ask(&client, &server, "first", 20);
    assert_eq!(shown(&server), 40);
    until_durable(&server);
    check_sums(&server);
    // These may be lost: their window is not over, or is just being written.
    ask(&client, &server, "second", 10);
    server.kill();

    let server = Daemon::start(&role, &data);
    server.deploy(&file);
    let kept = shown(&server);
    assert!((40..=60).contains(&kept), "{kept} requests after 40 durable ones and 20 more");
    ask(&client, &server, "third", 10);
    assert_eq!(shown(&server), kept + 20, "what is counted after the kill is neither lost nor doubled");

    until_durable(&server);
    server.kill();
    let server = Daemon::start(&role, &data);
    server.deploy(&file);
    assert_eq!(shown(&server), kept + 20, "a second kill changes nothing that was durable");
    assert_eq!(server.terminate(), 0);
}
