//! How `hvm` answers on the command line, without a server.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Output, Stdio};

fn hvm(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hvm"));
    command.args(arguments);
    for name in ["HVM_API", "HVM_CONFIG", "HVM_DATA", "HVM_TRUST"] {
        command.env_remove(name);
    }
    command.output().expect("hvm can be started")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn wrong_usage_ends_with_2_and_says_what_would_be_right() {
    for arguments in
        [&[][..], &["deploi"], &["deploy"], &["logs"], &["status", "--jsn"], &["dev", "--workers", "0"]]
    {
        let output = hvm(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains("--help"), "{arguments:?}: {}", stderr(&output));
    }
}

#[test]
fn every_command_has_help() {
    for command in
        ["dev", "agent", "scheduler", "image", "plan", "deploy", "status", "hosts", "logs", "usage", "stop"]
    {
        let output = hvm(&[command, "--help"]);
        assert_eq!(output.status.code(), Some(0), "{command}");
        assert!(!output.stdout.is_empty(), "{command} explains itself");
    }
}

#[test]
fn without_a_server_the_error_says_how_to_start_one() {
    // A port that was free a moment ago and that nobody else was told of.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address").to_string();
    drop(listener);
    let output = hvm(&["status", "--api", &address]);
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output);
    assert!(said.contains(&address) && said.contains("hvm dev"), "{said}");
}

#[test]
fn without_a_trust_policy_a_host_does_not_start() {
    let data = tempfile::tempdir().expect("a directory");
    let path = data.path().display().to_string();
    let output = hvm(&["dev", "--data", &path, "--ingress", "127.0.0.1:0", "--api", "127.0.0.1:0"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("--trust"), "{}", stderr(&output));
}

/// A scheduler of the test's own, which ends with the value.
struct OwnScheduler {
    process: Child,
    api: String,
}

impl OwnScheduler {
    fn start(data: &std::path::Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hvm"));
        command.arg("scheduler").arg("--data").arg(data).args(["--api", "127.0.0.1:0"]);
        command.env_remove("HVM_CONFIG").stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = command.spawn().expect("hvm can be started");
        let stdout = process.stdout.take().expect("it is piped");
        let said: Vec<String> = BufReader::new(stdout)
            .lines()
            .map(|line| line.expect("text"))
            .take_while(|line| line != "serving")
            .collect();
        let api = said.iter().find_map(|line| line.strip_prefix("api")).expect("it says where").trim().into();
        Self { process, api }
    }
}

impl Drop for OwnScheduler {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn a_listing_that_nobody_reads_to_its_end_is_no_failure() {
    let directory = tempfile::tempdir().expect("a directory");
    let scheduler = OwnScheduler::start(&directory.path().join("data"));
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut command = Command::new(env!("CARGO_BIN_EXE_hvm"));
    command.args(["hosts", "--api", &scheduler.api]).stdout(writer).stderr(Stdio::piped());
    let output = command.spawn().and_then(Child::wait_with_output).expect("hvm can be started");
    assert_eq!(stderr(&output), "");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn the_data_directory_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().expect("a directory");
    let data = directory.path().join("data");
    let _scheduler = OwnScheduler::start(&data);
    let mode = data.metadata().expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn a_data_directory_that_can_not_be_made_is_named() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("file");
    std::fs::write(&file, "").expect("written");
    let path = file.join("data").display().to_string();
    let output = hvm(&["scheduler", "--data", &path, "--api", "127.0.0.1:0"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains(&path), "{}", stderr(&output));
}
