//! A store behind the S3 API: moto, which `./test` installs.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use hvm_runtime::state::{IdempotencyWindow, S3Config, SharedConfig, SharedEngine, SharedStore, StateEngine};
use hvm_types::ByteSize;

use crate::bed::Bed;

/// A server of its own, and directories for hosts.
pub(crate) struct S3Bed {
    server: Child,
    endpoint: String,
    directory: tempfile::TempDir,
}

impl S3Bed {
    pub(crate) fn new() -> Self {
        let program = std::env::var("HVM_MOTO_SERVER").unwrap_or_else(|_| "moto_server".to_owned());
        let mut server = Command::new(&program)
            .args(["-H", "127.0.0.1", "-p", "0"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{program} does not start ({error}): `./test` installs it"));
        let mut lines = BufReader::new(server.stderr.take().expect("a pipe")).lines();
        let address = lines.by_ref().map_while(Result::ok).find_map(|line| {
            let (_, address) = line.split_once("http://")?;
            Some(address.trim().to_owned())
        });
        let address = address.expect("the server says where it listens");
        // It writes a line for each request.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        let request = format!(
            "PUT /state HTTP/1.1\r\nhost: {address}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        );
        let mut stream = TcpStream::connect(&address).expect("the server listens");
        stream.write_all(request.as_bytes()).expect("the server reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("the server answers");
        assert!(answer.starts_with("HTTP/1.1 200"), "no bucket was made: {answer}");
        let directory = tempfile::tempdir().expect("a directory for the test");
        Self { server, endpoint: format!("http://{address}"), directory }
    }

    pub(crate) fn config(&self, host: &str) -> SharedConfig {
        let store = SharedStore::s3(S3Config {
            endpoint: self.endpoint.clone(),
            region: "us-east-1".to_owned(),
            bucket: "state".to_owned(),
            prefix: "of/a/cluster".to_owned(),
            access_key_id: "test".to_owned(),
            secret_access_key: "test".to_owned(),
        });
        let (store, path) = (store.expect("an address"), self.directory.path().join(host));
        SharedConfig::new(host.parse().expect("a valid host"), store, path)
    }
}

impl Bed for S3Bed {
    fn start(&self, window: IdempotencyWindow) -> Arc<dyn StateEngine> {
        let mut config = self.config("host-1");
        config.local.window = window;
        config.upkeep = ByteSize(4000);
        Arc::new(SharedEngine::start(config).expect("the engine starts"))
    }
}

impl Drop for S3Bed {
    fn drop(&mut self) {
        let killed = self.server.kill().and_then(|()| self.server.wait());
        killed.expect("the server was running");
    }
}

#[test]
fn a_key_is_not_shown() {
    let secret_access_key = "very-secret".to_owned();
    let shown = format!("{:?}", S3Config { secret_access_key, ..S3Config::default() });
    assert!(!shown.contains("very-secret"), "{shown}");
}

#[test]
fn a_partition_moves_between_hosts_over_s3() {
    use crate::bed::{get, open, record};
    let bed = S3Bed::new();
    let start = |host| SharedEngine::start(bed.config(host)).expect("the engine starts");
    let (first, second) = (start("host-1"), start("host-2"));
    let old = open(&first, 0, 1);
    old.commit(record(&[("a", "1")])).wait().expect("the record is committed");
    let new = open(&second, 0, 2);
    assert_eq!(get(&*new, "a").as_deref(), Some("1"));
    assert!(old.commit(record(&[("a", "late")])).wait().is_err());
    new.commit(record(&[("a", "2")])).wait().expect("the record is committed");
    drop(second);
    assert_eq!(get(&*open(&first, 0, 3), "a").as_deref(), Some("2"));
}
