//! The main story: an app is deployed, fed a real data set, killed in the middle and started again.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use e2e::{App, Daemon, Role, Workshop, eventually, program, run};
use guests_path::Guest;

/// 2,000 flights of the year 2001, from the npm package vega-datasets.
fn flights() -> PathBuf {
    let file =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("node_modules/vega-datasets/data/flights-2k.json");
    assert!(file.exists(), "{} is missing: ./test fetches it", file.display());
    file
}

#[test]
fn every_acknowledged_flight_is_there_exactly_once_after_a_kill() {
    let workshop = Workshop::new();
    let _ = workshop.build(&App {
        name: "flightboard",
        package: "airports",
        version: "1.0.0",
        component: Guest::Flightboard.component(),
        capabilities: &["keyvalue"],
    });
    let file =
        workshop.write("flightboard.yaml", include_str!("../../../examples/flightboard/flightboard.yaml"));
    let role = Role::Dev { trust: workshop.trust() };
    let data = workshop.path("data");
    let flights = flights();

    let server = Daemon::start(&role, &data);
    server.deploy(&file);
    let feed = |arguments: &[&str], ingress: &str| {
        let mut all: Vec<&dyn AsRef<std::ffi::OsStr>> = vec![&"send", &flights, &"--to", &ingress];
        all.extend(arguments.iter().map(|argument| argument as &dyn AsRef<std::ffi::OsStr>));
        run("flightboard-feed", &all, &[]).success()
    };
    let check = |arguments: &[&str], ingress: &str| {
        let mut all: Vec<&dyn AsRef<std::ffi::OsStr>> = vec![&"check", &flights, &"--at", &ingress];
        all.extend(arguments.iter().map(|argument| argument as &dyn AsRef<std::ffi::OsStr>));
        run("flightboard-feed", &all, &[]).success()
    };
    let _ = feed(&[], &server.ingress);
    assert!(check(&[], &server.ingress).contains("equal: "));

    // A second feed; the server dies when the app has counted some of it.
    let journal = workshop.path("journal").display().to_string();
    let second = ["--feed", "second", "--journal", &journal];
    let sender = Command::new(program("flightboard-feed"))
        .args(["send", &flights.display().to_string(), "--to", &server.ingress, "--stop-when-lost"])
        .args(second)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let mut sender = sender.expect("the feed starts");
    let client = e2e::Client::new();
    eventually("a part of the second feed is applied", || {
        let more = |airport: &str, first: u64| {
            let answer = client.get(&format!("{}/airports/{airport}", server.ingress))?.ok();
            let board: serde_json::Value =
                serde_json::from_str(&answer).map_err(|error| error.to_string())?;
            let now = board["flights"].as_u64().unwrap_or(0);
            if now > first + 5 { Ok(()) } else { Err(format!("{airport} has {now}")) }
        };
        more("ATL", count(&flights, "ATL"))
    });
    server.kill();
    assert!(!sender.wait().expect("the feed ends").success(), "the feed notices that the server is gone");

    let server = Daemon::start(&role, &data);
    server.deploy(&file);
    let cut = check(&["--journal", &journal], &server.ingress);
    assert!(cut.contains("acknowledged ones of the cut one are there"), "the feed was cut: {cut}");
    let _ = feed(&second, &server.ingress);
    assert!(check(&["--feeds", "2"], &server.ingress).contains("equal: "));

    let usage = server.hvm(&[&"usage", &"--json"]).success();
    let usage: serde_json::Value = serde_json::from_str(&usage).expect("JSON");
    let partitions = usage[0]["partitions"].as_array().expect("partitions");
    assert_eq!(partitions.len(), 16);
    assert_eq!(server.terminate(), 0, "SIGTERM drains and ends with 0");
}

/// How many flights of the file leave an airport.
fn count(file: &std::path::Path, airport: &str) -> u64 {
    let text = std::fs::read(file).expect("the flights");
    let flights: Vec<serde_json::Value> = serde_json::from_slice(&text).expect("an array");
    let left = flights.iter().filter(|flight| flight["origin"] == airport).count();
    u64::try_from(left).expect("a count")
}
