//! Meters over a kill: at most one window is lost, and nothing counts twice.

use std::path::Path;

use e2e::{App, Client, Daemon, Role, Workshop, eventually};
use guests_path::Guest;
use serde_json::Value;

/// Requests that ended well, of all partitions and of the host itself.
fn succeeded(usage: &Value) -> u64 {
    let partitions = usage["partitions"].as_array().expect("partitions").iter();
    let of = |meter: &Value| meter["succeeded"].as_u64().expect("a count");
    partitions.map(|partition| of(&partition["meter"])).sum::<u64>() + of(&usage["rest"])
}

fn shown(server: &Daemon) -> u64 {
    let usage = server.hvm(&[&"usage", &"--json"]).success();
    let usage: Value = serde_json::from_str(&usage).expect("JSON");
    succeeded(&usage[0])
}

/// What the agent has made durable.
fn durable(data: &Path) -> Result<u64, String> {
    let text = std::fs::read(data.join("agent/usage.json")).map_err(|error| error.to_string())?;
    let kept: Value = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
    let of = |meter: &Value| meter["succeeded"].as_u64().ok_or("no count");
    let partitions = kept["partitions"].as_object().ok_or("no partitions")?;
    let sum = partitions.values().try_fold(0, |sum, meter| Ok::<_, String>(sum + of(meter)?))?;
    Ok(sum + of(&kept["rest"])?)
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
    let _ = workshop.build(&App {
        name: "ledger",
        package: "books",
        version: "1.0.0",
        component: Guest::Ledger.component(),
        capabilities: &["keyvalue"],
    });
    let file = workshop.write("ledger.yaml", include_str!("../../../examples/ledger/ledger.yaml"));
    let role = Role::Dev { trust: workshop.trust() };
    let data = workshop.path("data");
    let client = Client::new();

    let server = Daemon::start(&role, &data);
    server.deploy(&file);
    ask(&client, &server, "first", 20);
    assert_eq!(shown(&server), 40);
    eventually("the window is durable", || match durable(&data)? {
        40 => Ok(()),
        other => Err(format!("{other} of 40 requests")),
    });
    // These may be lost: their window is not over, or is just being written.
    ask(&client, &server, "second", 10);
    server.kill();

    let server = Daemon::start(&role, &data);
    server.deploy(&file);
    let kept = shown(&server);
    assert!((40..=60).contains(&kept), "{kept} requests after 40 durable ones and 20 more");
    ask(&client, &server, "third", 10);
    assert_eq!(shown(&server), kept + 20, "what is counted after the kill is neither lost nor doubled");

    eventually("the next window is durable", || match durable(&data)? {
        now if now == kept + 20 => Ok(()),
        other => Err(format!("{other} of {} requests", kept + 20)),
    });
    server.kill();
    let server = Daemon::start(&role, &data);
    server.deploy(&file);
    assert_eq!(shown(&server), kept + 20, "a second kill changes nothing that was durable");
    assert_eq!(server.terminate(), 0);
}
