//! What is refused, and whether the refusal says why and where.

use std::fs;
use std::path::{Path, PathBuf};

use e2e::{App, Client, Daemon, Role, Workshop, eventually, run};
use guests_path::Guest;

const PROBE: &str = "\
deployment: probe
image: IMAGE
jobs:
- name: probe
  groups:
  - name: probe
    partitions: 2
    tasks:
    - name: probe
      driver: app-partition
      config: { package: probe }
      resources: { cpu: 100, memory: 32 }
      grants: { keyvalue: [default], config: true, logging: true, http: [\"http://127.0.0.1:9\"] }
routes:
- { match: { prefix: / }, group: probe, key: { query: p } }
";

fn probe(version: &'static str) -> App<'static> {
    App {
        name: "probe",
        package: "probe",
        version,
        component: Guest::Probe.component(),
        capabilities: &["keyvalue", "config", "logging", "outgoing-http"],
    }
}

fn dev(workshop: &Workshop) -> Daemon {
    Daemon::start(&Role::Dev { trust: workshop.trust() }, &workshop.path("data"))
}

/// A probe deployment of `image` with `change` made to its text.
fn file(workshop: &Workshop, image: &Path, change: impl Fn(String) -> String) -> PathBuf {
    let name = image.file_name().expect("a file name").to_string_lossy();
    workshop.write("probe.yaml", &change(PROBE.replace("IMAGE", &name)))
}

#[test]
fn an_image_that_is_not_signed_by_a_trusted_key_never_runs() {
    let workshop = Workshop::new();
    let server = dev(&workshop);
    let unsigned = workshop.pack(&probe("1.0.0"));
    let refusal = server.hvm(&[&"deploy", &file(&workshop, &unsigned, |text| text)]).refusal();
    assert!(refusal.contains("not signed") || refusal.contains("unsigned"), "{refusal}");

    let stranger = Workshop::new();
    let foreign = workshop.path("probe-2.0.0.aimg");
    fs::copy(stranger.build(&probe("2.0.0")), &foreign).expect("a copy");
    let refusal = server.hvm(&[&"deploy", &file(&workshop, &foreign, |text| text)]).refusal();
    assert!(refusal.contains("trust"), "{refusal}");
    let answer = Client::new().get(&format!("{}/?p=1", server.ingress)).expect("an answer");
    assert!(answer.status.is_server_error() || answer.status == 404, "nothing runs: {}", answer.status);

    // A good image over it heals it.
    server.deploy(&file(&workshop, &workshop.build(&probe("3.0.0")), |text| text));
    assert!(Client::new().get(&format!("{}/?p=1", server.ingress)).expect("an answer").status.is_success());
}

#[test]
fn a_damaged_image_is_refused_before_it_is_sent() {
    let workshop = Workshop::new();
    let server = dev(&workshop);
    let image = workshop.build(&probe("1.0.0"));
    let whole = fs::read(&image).expect("the image");
    let file = file(&workshop, &image, |text| text);

    let mut flipped = whole.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    fs::write(&image, &flipped).expect("a damaged image");
    let refusal = server.hvm(&[&"deploy", &file]).refusal();
    assert!(refusal.contains("digest"), "{refusal}");

    fs::write(&image, &whole[..whole.len() / 2]).expect("a truncated image");
    let refusal = server.hvm(&[&"deploy", &file]).refusal();
    assert!(refusal.contains("truncated") || refusal.contains("ends"), "{refusal}");
}

#[test]
fn what_does_not_exist_is_refused_with_what_does_and_what_was_stopped_keeps_its_logs() {
    let workshop = Workshop::new();
    let server = dev(&workshop);
    let ask = |command: &str, of: &str| server.hvm(&[&command, &of]);
    for command in ["logs", "usage"] {
        let refusal = ask(command, "nothere").refusal();
        assert!(refusal.contains("no deployment `nothere`") && refusal.contains("hvm deploy"), "{refusal}");
    }
    let image = workshop.build(&probe("1.0.0"));
    server.deploy(&file(&workshop, &image, |text| text));
    for command in ["logs", "usage"] {
        let refusal = ask(command, "nothere").refusal();
        assert!(refusal.contains("there is probe"), "{refusal}");
        let refusal = ask(command, "probe/nothere").refusal();
        assert!(refusal.contains("no group `nothere`"), "{refusal}");
        let _ = ask(command, "probe/probe/1").success();
    }
    let refusal = server.hvm(&[&"logs", &"--follow", &"nothere"]).refusal();
    assert!(refusal.contains("there is probe"), "{refusal}");

    let answer = Client::new().get(&format!("{}/log?p=1&m=remember", server.ingress)).expect("an answer");
    assert!(answer.status.is_success(), "{}", answer.status);
    eventually("the line is stored", || match ask("logs", "probe").stdout {
        log if log.contains("remember") => Ok(()),
        log => Err(log),
    });
    let _ = ask("stop", "probe").success();
    eventually("nothing is declared any more", || match server.status() {
        serde_json::Value::Array(all) if all.is_empty() => Ok(()),
        status => Err(status.to_string()),
    });
    assert!(ask("logs", "probe").success().contains("remember"));
    assert!(ask("usage", "probe").success().contains("probe/probe/"));
}

#[test]
fn a_deployment_that_finds_no_room_says_so_at_once_and_at_the_end() {
    let workshop = Workshop::new();
    let role = Role::Dev { trust: workshop.trust() };
    let server = Daemon::start_with(&role, &workshop.path("data"), &["--memory", "64"]);
    let image = workshop.build(&probe("1.0.0"));
    let large = file(&workshop, &image, |text| text.replace("memory: 32", "memory: 65"));
    let deployed = server.hvm(&[&"deploy", &"--timeout", &"2", &large]);
    assert_eq!(deployed.code, 1, "{}", deployed.stderr);
    let lines: Vec<&str> = deployed.stderr.lines().collect();
    let waits = "probe/probe: 2 copies wait: no host takes it: dev: too little memory";
    assert!(lines[0].starts_with(waits), "{lines:?}");
    assert!(lines[1].starts_with("error: ") && lines[1].contains(waits), "{lines:?}");
}

#[test]
fn a_wrong_deployment_file_is_refused_with_file_line_and_field() {
    let workshop = Workshop::new();
    let server = dev(&workshop);
    let image = workshop.build(&probe("1.0.0"));
    let refused = |from: &str, to: &str, wanted: &[&str]| {
        let file = file(&workshop, &image, |text| {
            assert!(text.contains(from), "the file has {from:?}");
            text.replace(from, to)
        });
        for command in ["plan", "deploy"] {
            let refusal = server.hvm(&[&command, &file]).refusal();
            for part in wanted {
                assert!(refusal.contains(part), "{command} of {to:?} must say {part:?}:\n{refusal}");
            }
        }
    };
    refused("partitions: 2", "partition: 2", &["probe.yaml:7:", "partition", "partitions"]);
    refused("memory: 32", "memory: 32MB", &["probe.yaml:12:", "memory"]);
    refused("partitions: 2", "partitions: 0", &["probe.yaml:7:", "partitions", "65"]);
    refused("partitions: 2", "partitions: 70000", &["probe.yaml:7:", "partitions", "65"]);
    refused(", key: { query: p }", "", &["probe.yaml:15:", "key"]);
    refused("group: probe, key", "group: prob, key", &["probe.yaml:15:", "prob"]);
    refused("keyvalue: [default], ", "", &["keyvalue", "probe"]);
    refused("package: probe", "package: prob", &["probe.yaml:11:", "prob"]);
    assert_eq!(server.status().as_array().map(Vec::len), Some(0), "nothing was declared");
}

#[test]
fn the_partition_count_of_a_live_group_can_not_be_changed() {
    let workshop = Workshop::new();
    let server = dev(&workshop);
    let image = workshop.build(&probe("1.0.0"));
    server.deploy(&file(&workshop, &image, |text| text));
    let changed = file(&workshop, &image, |text| text.replace("partitions: 2", "partitions: 3"));
    let refusal = server.hvm(&[&"deploy", &changed]).refusal();
    assert!(refusal.contains("partitions") && refusal.contains('2') && refusal.contains('3'), "{refusal}");
    let status = server.status();
    assert_eq!(status[0]["generation"], 1);
    assert_eq!(status[0]["groups"][0]["replicas"].as_array().map(Vec::len), Some(2));
}

#[test]
fn a_data_directory_belongs_to_one_process() {
    let workshop = Workshop::new();
    let server = dev(&workshop);
    let data = workshop.path("data");
    let free = "127.0.0.1:0";
    let refusal = run(
        "hvm",
        &[&"dev", &"--data", &data, &"--ingress", &free, &"--api", &free, &"--trust", &workshop.trust()],
        &[],
    )
    .refusal();
    assert!(
        refusal.contains("another process") && refusal.contains(&data.display().to_string()),
        "{refusal}"
    );
    assert!(server.status().is_array(), "the first one goes on");
}

#[test]
fn a_port_in_use_is_named() {
    let workshop = Workshop::new();
    let server = dev(&workshop);
    let taken = server.ingress.trim_start_matches("http://");
    let start = |ingress: &str, api: &str| {
        let other = workshop.path("other");
        run(
            "hvm",
            &[
                &"dev",
                &"--data",
                &other,
                &"--ingress",
                &ingress,
                &"--api",
                &api,
                &"--trust",
                &workshop.trust(),
            ],
            &[],
        )
        .refusal()
    };
    let refusal = start(taken, "127.0.0.1:0");
    assert!(refusal.contains(taken) && refusal.contains("in use"), "{refusal}");
    let refusal = start("127.0.0.1:0", &server.api);
    assert!(refusal.contains(&server.api) && refusal.contains("in use"), "{refusal}");
}

#[test]
fn a_misbehaving_guest_gets_an_error_and_its_neighbour_an_answer() {
    let workshop = Workshop::new();
    let server = dev(&workshop);
    let quick = |text: String| text.replace("memory: 32", "memory: 32, deadline: 1s");
    server.deploy(&file(&workshop, &workshop.build(&probe("1.0.0")), quick));
    let client = Client::new();
    let post = |path: &str| client.post(&format!("{}{path}?p=bad", server.ingress), &[], "");
    for (path, status) in
        [("/trap", 500), ("/recurse", 500), ("/alloc", 500), ("/silent", 500), ("/loop", 504)]
    {
        let answer = post(path).expect("an answer");
        assert_eq!(answer.status, status, "{path}: {}", answer.body);
        assert!(answer.body.contains("probe/probe/"), "{path} names its partition: {}", answer.body);
    }
    // Half an answer is never taken for a whole one: the connection is cut, or the guest's failure was
    // seen before anything left.
    match client.get(&format!("{}/half?p=bad", server.ingress)) {
        Err(cut) => assert!(cut.contains("cut off"), "{cut}"),
        Ok(answer) => assert_eq!(answer.status, 500, "{}", answer.body),
    }
    for key in ["bad", "other", "third"] {
        let answer = client.get(&format!("{}/?p={key}", server.ingress)).expect("an answer");
        assert!(answer.status.is_success(), "{key}: {} {}", answer.status, answer.body);
    }
    eventually("the log tells of the trap", || {
        let log = server.hvm(&[&"logs", &"probe"]).success();
        if log.contains("unreachable") { Ok(()) } else { Err(log) }
    });
}
