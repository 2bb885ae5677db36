//! Asking once, with nothing but a socket: for the first answer after a start, and for the first answer of a
//! partition that is not in memory.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Longest wait for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// A kept connection.
pub(crate) struct Client {
    stream: TcpStream,
    answer: Vec<u8>,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        Ok(Self { stream, answer: Vec::with_capacity(4096) })
    }

    /// Sends one request with a partition key, which matters only where partitions are asked, and reads the whole
    /// answer; returns its status.
    pub(crate) fn ask(&mut self, key: u32) -> std::io::Result<u16> {
        let request = format!("GET / HTTP/1.1\r\nhost: localhost\r\nx-key: {key}\r\n\r\n");
        self.stream.write_all(request.as_bytes())?;
        self.answer.clear();
        let mut part = [0; 4096];
        while !is_whole(&self.answer) {
            let read = self.stream.read(&mut part)?;
            if read == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            self.answer.extend_from_slice(&part[..read]);
        }
        status(&self.answer).ok_or_else(|| ErrorKind::InvalidData.into())
    }

    /// The last answer as it came.
    pub(crate) fn answer(&self) -> &[u8] {
        &self.answer
    }

    /// A header of the last answer; empty where it has none of that name, which is given in lower case.
    pub(crate) fn header(&self, name: &str) -> String {
        let text = String::from_utf8_lossy(&self.answer);
        let value = |line: &str| {
            line.split_once(": ")
                .filter(|(known, _)| known.eq_ignore_ascii_case(name))
                .map(|(_, value)| value.to_owned())
        };
        text.lines().take_while(|line| !line.is_empty()).find_map(value).unwrap_or_default()
    }
}

/// Whether an answer with a length or in chunks is complete.
fn is_whole(answer: &[u8]) -> bool {
    let Some(end) = find(answer, b"\r\n\r\n") else { return false };
    let (head, body) = (answer[..end].to_ascii_lowercase(), &answer[end + 4..]);
    if let Some(at) = find(&head, b"content-length:") {
        let digits = head[at + 15..].trim_ascii_start();
        let digits = &digits[..digits.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(digits.len())];
        let length = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
        return body.len() >= length.unwrap_or(0);
    }
    find(&head, b"chunked").is_none() || body.ends_with(b"0\r\n\r\n")
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

fn status(answer: &[u8]) -> Option<u16> {
    std::str::from_utf8(answer.get(9..12)?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_when_its_length_or_last_chunk_is_there() {
        for (answer, whole) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nh", false),
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", true),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n", false),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", true),
            ("HTTP/1.1 200 OK\r\ncontent-le", false),
        ] {
            assert_eq!(is_whole(answer.as_bytes()), whole, "{answer}");
        }
        assert_eq!(status(b"HTTP/1.1 503 Service Unavailable"), Some(503));
    }
}
