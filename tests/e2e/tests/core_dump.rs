//! A guest's memory goes to the operator who waits for it, whole, and nowhere else.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use e2e::{App, Client, Daemon, Role, Workshop, program};
use guests_path::Guest;

const PROBE: &str = "\
deployment: probe
image: probe-1.0.0.aimg
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

const SECRET: &str = "what-only-the-guest-knows";

/// Starts `hvm coredump` and returns when it waits.
fn wait_for_dump(server: &Daemon, out: &Path, more: &[&str]) -> Child {
    let mut command = Command::new(program("hvm"));
    command.args(["coredump", "probe", "--out"]).arg(out).args(more).env("HVM_API", &server.api);
    let mut child =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("hvm can be started");
    let mut said = String::new();
    let mut stderr = BufReader::new(child.stderr.take().expect("it is piped"));
    stderr.read_line(&mut said).expect("a line");
    assert!(said.starts_with("waiting for a guest of 2 partitions"), "{said}");
    child
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry"));
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// Whether any file below holds a text.
fn is_anywhere(folder: &Path, text: &str) -> bool {
    fs::read_dir(folder).expect("a folder").any(|entry| {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            is_anywhere(&path, text)
        } else {
            holds(&fs::read(&path).unwrap_or_default(), text)
        }
    })
}

#[test]
fn a_core_dump_reaches_who_waits_for_it_whole_and_stays_nowhere_else() {
    let workshop = Workshop::new();
    let _ = workshop.build(&App {
        name: "probe",
        package: "probe",
        version: "1.0.0",
        component: Guest::Probe.component(),
        capabilities: &["keyvalue", "config", "logging", "outgoing-http"],
    });
    let file = workshop.write("probe.yaml", PROBE);
    let data = workshop.path("data");
    let server = Daemon::start(&Role::Dev { trust: workshop.trust() }, &data);
    server.deploy(&file);
    let client = Client::new();
    let dumps = workshop.path("dumps");
    fs::create_dir(&dumps).expect("a folder");
    let trap = format!("{}/trap?p=1&note={SECRET}", server.ingress);

    // Who is killed while waiting has asked for nothing.
    let mut killed = wait_for_dump(&server, &dumps.join("killed.core"), &[]);
    killed.kill().expect("it can be killed");
    killed.wait().expect("its end is told");
    assert_eq!(client.get(&trap).expect("an answer").status, 500);
    assert!(names_in(&dumps).is_empty(), "{:?}", names_in(&dumps));

    let trapped = dumps.join("trapped.core");
    let waiting = wait_for_dump(&server, &trapped, &[]);
    assert_eq!(client.get(&trap).expect("an answer").status, 500);
    let output = waiting.wait_with_output().expect("its end is told");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("probe::fault::trap"), "{said}");
    let dump = fs::read(&trapped).expect("a dump");
    assert!(dump.starts_with(b"\0asm"));
    for text in ["corestack", "probe::fault::trap", SECRET] {
        assert!(holds(&dump, text), "no {text}");
    }
    assert_eq!(fs::metadata(&trapped).expect("it is there").permissions().mode() & 0o777, 0o600);
    assert_eq!(names_in(&dumps), ["trapped.core"]);
    assert!(!is_anywhere(&data, SECRET), "the host kept what the guest knew");
    let refusal = server.hvm(&[&"coredump", &"probe", &"--out", &trapped]).refusal();
    assert!(refusal.contains("already there"), "{refusal}");

    // Why does it hang?
    let waiting = wait_for_dump(&server, &dumps.join("hung.core"), &["--after", "300ms"]);
    assert_eq!(client.get(&format!("{}/loop?p=2", server.ingress)).expect("an answer").status, 504);
    let output = waiting.wait_with_output().expect("its end is told");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("spin_forever"), "{said}");

    let unknown = server.hvm(&[&"coredump", &"nobody", &"--out", &dumps.join("x")]).refusal();
    assert!(unknown.contains("no partition of `nobody` runs"), "{unknown}");
    let patience = server.hvm(&[&"coredump", &"probe", &"--out", &dumps.join("x"), &"--wait", &"10ms"]);
    assert_eq!(patience.code, 1, "{}", patience.stdout);
    assert!(patience.stderr.contains("nothing was dumped"), "{}", patience.stderr);
    assert_eq!(server.terminate(), 0);
}
