//! A new version of an app keeps its state in another layout.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use e2e::{App, Client, Daemon, Role, Workshop, eventually};
use guests_path::Guest;

const PARTITIONS: usize = 8;
/// Keys enough that every partition has one.
const PARTS: u32 = 48;

/// A version of the probe in this layout, which migrates as it is told, `ms` after it was asked.
struct Version {
    number: &'static str,
    layout: u32,
    migrate: &'static str,
    ms: u32,
    max_parallel: u32,
}

impl Version {
    /// Builds it and returns the file that deploys it.
    fn build(&self, workshop: &Workshop) -> PathBuf {
        let Self { number, layout, migrate, ms, max_parallel } = self;
        let app = App {
            name: "probe",
            package: "parts",
            version: number,
            component: Guest::Probe.component(),
            capabilities: &["keyvalue", "config", "logging", "outgoing-http"],
        };
        let from = if *layout > 1 { "migrates_from = 1\n" } else { "" };
        let _ = workshop.build_with(&app, &format!("state_schema = {layout}\n{from}"));
        workshop.write(
            &format!("{number}.yaml"),
            &format!(
                "deployment: probe
image: probe-{number}.aimg
jobs:
- name: probe
  groups:
  - name: parts
    partitions: {PARTITIONS}
    update: {{ max_parallel: {max_parallel} }}
    tasks:
    - name: parts
      driver: app-partition
      config: {{ package: parts }}
      env: {{ version: \"{number}\", migrate: \"{migrate}\", migrate-ms: \"{ms}\" }}
      grants: {{ keyvalue: [default], config: true, logging: true, http: [\"https://granted.example\"] }}
routes:
- {{ match: {{ prefix: /kv }}, group: parts, key: {{ query: part }} }}
- {{ match: {{ prefix: /config }}, group: parts, key: {{ query: part }} }}
"
            ),
        )
    }
}

fn post(client: &Client, server: &Daemon, action: &str, part: u32) -> String {
    let url = format!("{}/kv/{action}&part={part}", server.ingress);
    client.post(&url, &[], "").expect("an answer").ok()
}

/// What the partition of a part has under a key.
fn get(client: &Client, server: &Daemon, key: &str, part: u32) -> String {
    client.get(&format!("{}/kv/get?k={key}&part={part}", server.ingress)).expect("an answer").ok()
}

/// Which version answers for a part.
fn version(client: &Client, server: &Daemon, part: u32) -> String {
    client.get(&format!("{}/config?k=version&part={part}", server.ingress)).expect("an answer").ok()
}

fn replicas(server: &Daemon) -> Vec<serde_json::Value> {
    let status = server.status();
    status[0]["groups"][0]["replicas"].as_array().expect("replicas").clone()
}

fn at_generation(server: &Daemon, generation: u64) -> usize {
    let runs = |replica: &&serde_json::Value| {
        replica["observed"]["generation"] == generation && replica["observed"]["next"].is_null()
    };
    replicas(server).iter().filter(runs).count()
}

fn all_at(server: &Daemon, generation: u64) {
    eventually("every partition runs the new generation", || match at_generation(server, generation) {
        PARTITIONS => Ok(()),
        n => Err(format!("{n} at {generation}: {:?}", replicas(server))),
    });
}

/// Gives every partition state of the first layout; returns the number that it has.
fn fill(client: &Client, server: &Daemon) -> Vec<u64> {
    for part in 0..PARTS {
        let _ = post(client, server, "incr?k=n&by=1", part);
    }
    (0..PARTS).map(|part| get(client, server, "n", part).parse().expect("a number")).collect()
}

#[test]
fn each_partition_is_migrated_once_under_load_and_a_migration_that_fails_leaves_the_old_version_serving() {
    let workshop = Workshop::new();
    let versions = [
        Version { number: "1.0.0", layout: 1, migrate: "", ms: 0, max_parallel: 1 },
        Version { number: "2.0.0", layout: 2, migrate: "ok", ms: 100, max_parallel: 2 },
        Version { number: "3.0.0", layout: 3, migrate: "fail", ms: 100, max_parallel: 1 },
        Version { number: "3.0.1", layout: 3, migrate: "ok", ms: 0, max_parallel: 8 },
    ];
    let [first, second, broken, mended] = versions.map(|version| version.build(&workshop));
    let (role, data) = (Role::Dev { trust: workshop.trust() }, workshop.path("data"));
    let server = Daemon::start(&role, &data);
    server.deploy(&first);
    let client = Client::new();
    let before = fill(&client, &server);

    let end = Arc::new(AtomicBool::new(false));
    let acknowledged = Arc::new(AtomicU64::new(0));
    let senders: Vec<_> = (0..4)
        .map(|sender| {
            let (end, acknowledged) = (Arc::clone(&end), Arc::clone(&acknowledged));
            let ingress = server.ingress.clone();
            std::thread::spawn(move || {
                let client = Client::new();
                let mut sent = vec![0_u64; PARTS as usize];
                for part in (0..PARTS).cycle().skip(sender * 12) {
                    if end.load(Ordering::Relaxed) {
                        break;
                    }
                    let url = format!("{ingress}/kv/incr?k=s{sender}-{part}&part={part}");
                    let answer = client.post(&url, &[], "").expect("an answer");
                    assert_eq!(answer.status, 200, "a command: {}", answer.body);
                    let url = format!("{ingress}/kv/get?k=n&part={part}");
                    let answer = client.get(&url).expect("an answer");
                    assert_eq!(answer.status, 200, "a query: {}", answer.body);
                    sent[part as usize] += 1;
                    acknowledged.fetch_add(1, Ordering::Relaxed);
                }
                sent
            })
        })
        .collect();
    let more = |n: u64| {
        let goal = acknowledged.load(Ordering::Relaxed) + n;
        eventually("more is acknowledged", || {
            let now = acknowledged.load(Ordering::Relaxed);
            if now >= goal { Ok(()) } else { Err(format!("{now} of {goal}")) }
        });
    };
    more(100);
    let _ = server.hvm(&[&"deploy", &"--detach", &second]).success();
    all_at(&server, 2);
    more(100);

    // One partition finds out that the third version's migration fails; no other is tried, and all serve.
    let _ = server.hvm(&[&"deploy", &"--detach", &broken]).success();
    let fails = |text: &str| text.contains("layout 2 to 3") && text.contains("it was told to fail");
    eventually("the status says that the migration failed, and what waits for it", || {
        let text = server.hvm(&[&"status", &"probe"]).success();
        if fails(&text) && text.contains("the update stopped at") { Ok(()) } else { Err(text) }
    });
    more(200);
    let tried = replicas(&server).iter().filter(|replica| !replica["observed"]["next"].is_null()).count();
    assert_eq!((tried, at_generation(&server, 2)), (1, PARTITIONS - 1));
    end.store(true, Ordering::Relaxed);
    let sent: Vec<Vec<u64>> =
        senders.into_iter().map(|sender| sender.join().expect("no request failed")).collect();

    // Also after a crash it is the second version that serves.
    server.kill();
    let server = Daemon::start(&role, &data);
    eventually("every partition serves again", || {
        let serves = |replica: &serde_json::Value| replica["observed"]["state"]["state"] == "ready";
        let ready = replicas(&server).iter().filter(|replica| serves(replica)).count();
        if ready == PARTITIONS { Ok(()) } else { Err(format!("{:?}", replicas(&server))) }
    });
    let back = server.hvm(&[&"deploy", &"--detach", &first]).refusal();
    assert!(back.contains("layout"), "{back}");
    for part in 0..PARTS {
        assert_eq!(version(&client, &server, part), "2.0.0");
        assert_eq!(get(&client, &server, "migrations", part), "1-2 ");
        assert_eq!(get(&client, &server, "n", part), (before[part as usize] * 100).to_string());
        for (sender, sent) in sent.iter().enumerate() {
            let counted = post(&client, &server, &format!("incr?k=s{sender}-{part}"), part);
            assert_eq!(counted, (sent[part as usize] + 1).to_string(), "s{sender}-{part}");
        }
    }

    // The update can be taken back, because nothing of it has come about; and a mended version goes on from there.
    let _ = server.hvm(&[&"deploy", &"--detach", &second]).success();
    all_at(&server, 4);
    let _ = server.hvm(&[&"deploy", &"--detach", &mended]).success();
    all_at(&server, 5);
    for part in 0..PARTS {
        assert_eq!(version(&client, &server, part), "3.0.1");
        assert_eq!(get(&client, &server, "migrations", part), "1-2 2-3 ");
        assert_eq!(get(&client, &server, "n", part), (before[part as usize] * 10_000).to_string());
    }
    assert_eq!(server.terminate(), 0);
}

#[test]
fn kills_in_the_middle_of_migrations_migrate_nothing_twice_and_lose_nothing() {
    let workshop = Workshop::new();
    let versions = [
        Version { number: "1.0.0", layout: 1, migrate: "", ms: 0, max_parallel: 1 },
        Version { number: "2.0.0", layout: 2, migrate: "ok", ms: 300, max_parallel: 2 },
    ];
    let [first, second] = versions.map(|version| version.build(&workshop));
    let (role, data) = (Role::Dev { trust: workshop.trust() }, workshop.path("data"));
    let mut server = Daemon::start(&role, &data);
    server.deploy(&first);
    let client = Client::new();
    let before = fill(&client, &server);
    let _ = server.hvm(&[&"deploy", &"--detach", &second]).success();
    for done in [1, 3, 5] {
        eventually("some partitions are migrated and others are being", || {
            match (at_generation(&server, 2), replicas(&server)) {
                (n, replicas) if n < done => Err(format!("{n} at 2: {replicas:?}")),
                _ => Ok(()),
            }
        });
        server.kill();
        server = Daemon::start(&role, &data);
    }
    all_at(&server, 2);
    for part in 0..PARTS {
        assert_eq!(version(&client, &server, part), "2.0.0");
        assert_eq!(get(&client, &server, "migrations", part), "1-2 ", "part {part}");
        assert_eq!(get(&client, &server, "n", part), (before[part as usize] * 100).to_string());
    }
    assert_eq!(server.terminate(), 0);
}
