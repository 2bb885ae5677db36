//! A new version of an app takes over under load.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use e2e::{App, Client, Daemon, Role, Workshop, eventually};
use guests_path::Guest;

const AIRPORTS: [&str; 8] = ["ATL", "ORD", "DFW", "LAX", "PHX", "STL", "DTW", "MSP"];
const FLIGHT: &str = r#"{"delay": 7, "distance": 100, "destination": "JFK"}"#;

fn flightboard(version: &'static str, component: Guest) -> App<'static> {
    App {
        name: "flightboard",
        package: "airports",
        version,
        component: component.component(),
        capabilities: &["keyvalue"],
    }
}

#[test]
fn a_new_version_takes_over_under_load_without_a_failed_request() {
    let workshop = Workshop::new();
    let _ = workshop.build(&flightboard("1.0.0", Guest::Flightboard));
    let _ = workshop.build(&flightboard("1.1.0", Guest::FlightboardNext));
    let old = workshop.write("old.yaml", include_str!("../../../examples/flightboard/flightboard.yaml"));
    let new = workshop.write("new.yaml", include_str!("../../../examples/flightboard/next/flightboard.yaml"));
    let server = Daemon::start(&Role::Dev { trust: workshop.trust() }, &workshop.path("data"));
    server.deploy(&old);

    let end = Arc::new(AtomicBool::new(false));
    let acknowledged = Arc::new(AtomicU64::new(0));
    let senders: Vec<_> = AIRPORTS
        .into_iter()
        .map(|airport| {
            let (end, acknowledged) = (Arc::clone(&end), Arc::clone(&acknowledged));
            let url = format!("{}/airports/{airport}/flights", server.ingress);
            std::thread::spawn(move || {
                let client = Client::new();
                let mut sent = 0_u64;
                while !end.load(Ordering::Relaxed) {
                    let answer = client.post(&url, &[], FLIGHT).expect("an answer");
                    assert_eq!(answer.status, 201, "request {sent} of {airport}: {}", answer.body);
                    sent += 1;
                    acknowledged.fetch_add(1, Ordering::Relaxed);
                }
                (airport, sent)
            })
        })
        .collect();
    let more = |n: u64| {
        let goal = acknowledged.load(Ordering::Relaxed) + n;
        eventually("more flights are acknowledged", || {
            let now = acknowledged.load(Ordering::Relaxed);
            if now >= goal { Ok(()) } else { Err(format!("{now} of {goal}")) }
        });
    };
    more(200);
    let _ = server.hvm(&[&"deploy", &"--detach", &new]).success();
    // While it happens, both generations can be seen; at the end all partitions run the new one.
    let mut saw_both = false;
    eventually("every partition runs generation 2", || {
        let status = server.status();
        let replicas = status[0]["groups"][0]["replicas"].as_array().expect("replicas").clone();
        let at = |generation: u64| {
            replicas.iter().filter(|replica| replica["observed"]["generation"] == generation).count()
        };
        saw_both |= status[0]["generation"] == 2 && at(1) > 0;
        if at(2) == 16 { Ok(()) } else { Err(format!("{} at 1, {} at 2", at(1), at(2))) }
    });
    assert!(saw_both, "the old generation was seen beside the new one");
    more(200);
    end.store(true, Ordering::Relaxed);

    let client = Client::new();
    for sender in senders {
        let (airport, sent) = sender.join().expect("no request failed");
        let board = client.get(&format!("{}/airports/{airport}", server.ingress)).expect("an answer").ok();
        let board: serde_json::Value = serde_json::from_str(&board).expect("JSON");
        assert_eq!(board["flights"], sent, "{airport} keeps every acknowledged flight, once");
        let version = client.get(&format!("{}/airports/{airport}/version", server.ingress));
        assert_eq!(version.expect("an answer").ok().trim(), "1.1.0");
    }
}
