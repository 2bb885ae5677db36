//! A server of the S3 API for stories about state in a bucket: moto, which `./test` installs.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

/// A running server with the bucket `state`, all in memory. It is killed when this is dropped.
pub struct S3Server {
    child: Child,
    /// Where it listens, as `http://host:port`.
    pub endpoint: String,
}

impl S3Server {
    /// Starts a server and makes the bucket.
    ///
    /// # Panics
    /// Where it can't be started.
    #[must_use]
    pub fn start() -> Self {
        let program = std::env::var("HVM_MOTO_SERVER").unwrap_or_else(|_| "moto_server".to_owned());
        let mut child = Command::new(&program)
            .args(["-H", "127.0.0.1", "-p", "0"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{program} does not start ({error}): `./test` installs it"));
        let mut lines = BufReader::new(child.stderr.take().expect("a pipe")).lines();
        let address = lines.by_ref().map_while(Result::ok).find_map(|line| {
            let (_, address) = line.split_once("http://")?;
            Some(address.trim().to_owned())
        });
        let address = address.expect("the server says where it listens");
        // It writes a line for each request.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        let server = Self { child, endpoint: format!("http://{address}") };
        let request = format!(
            "PUT /state HTTP/1.1\r\nhost: {address}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        );
        let mut stream = TcpStream::connect(&address).expect("the server listens");
        stream.write_all(request.as_bytes()).expect("the server reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("the server answers");
        assert!(answer.starts_with("HTTP/1.1 200"), "no bucket was made: {answer}");
        server
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
