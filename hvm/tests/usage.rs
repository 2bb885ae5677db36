//! How `hvm` answers on the command line, without a server.

use std::process::{Command, Output};

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
        assert!(stderr(&output).contains("Usage"), "{arguments:?}: {}", stderr(&output));
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
