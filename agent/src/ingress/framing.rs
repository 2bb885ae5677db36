//! One reading of where an HTTP/1 request ends. What two readers could read differently (RFC 9112, 11.2) is made
//! unreadable before hyper sees it, which then answers 400 and closes: hyper itself accepts a bare line feed, both a
//! length and a coding, or the same length twice. HTTP/2 passes untouched; it has frames.
//!
//! It knows of lines, lengths and chunks only; everything else about a head is checked by hyper.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How an HTTP/2 connection begins; no HTTP/1 method is followed by this.
const HTTP2: &[u8] = b"PRI * HTTP/2.0";

/// Longest line in bytes; hyper's own limit of a head is no larger.
const MAX_LINE_BYTES: usize = 64 << 10;

/// Digits of a chunk's size: 60 bits.
const MAX_SIZE_DIGITS: usize = 15;

/// Takes the place of what has two readings: nothing that hyper accepts anywhere outside of a body's bytes, and what it
/// takes for the end of a head, without which it would wait for one.
const POISON: &[u8] = b"\0\n\n";

/// A connection whose requests can be read in one way only.
#[derive(Debug)]
pub(crate) struct StrictFraming<S> {
    stream: S,
    place: Place,
    /// The beginning of a line whose end was not read yet.
    partial: Vec<u8>,
    head: Head,
    is_first: bool,
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    RequestLine,
    Field,
    Body {
        left: u64,
    },
    ChunkSize,
    ChunkData {
        left: u64,
    },
    ChunkEnd,
    Trailer,
    /// HTTP/2: not looked at.
    Frames,
    /// Something had two readings: only so much of the poison is still to be passed on.
    Refused {
        poison: &'static [u8],
    },
}

/// What a head has said so far of its body.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Head {
    #[default]
    NoBody,
    Length(u64),
    Chunked,
}

/// There are two readings.
#[derive(Debug, PartialEq, Eq)]
struct Ambiguous;

impl<S> StrictFraming<S> {
    pub(crate) const fn new(stream: S) -> Self {
        Self { stream, place: Place::RequestLine, partial: Vec::new(), head: Head::NoBody, is_first: true }
    }

    /// Follows the requests through what was just read; returns how much of it has one reading.
    fn follow(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while at < bytes.len() {
            match &mut self.place {
                Place::Frames => return bytes.len(),
                Place::Refused { .. } => return at,
                Place::Body { left } | Place::ChunkData { left } => {
                    let here = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len() - at);
                    at += here;
                    *left -= here as u64;
                    match self.place {
                        Place::Body { left: 0 } => self.place = Place::RequestLine,
                        Place::ChunkData { left: 0 } => self.place = Place::ChunkEnd,
                        _ => {}
                    }
                }
                _ => match self.follow_line(&bytes[at..]) {
                    Ok(length) => at += length,
                    Err(Ambiguous) => self.place = Place::Refused { poison: POISON },
                },
            }
        }
        at
    }

    /// Takes the line that begins or goes on here; returns how much of it is here.
    fn follow_line(&mut self, bytes: &[u8]) -> Result<usize, Ambiguous> {
        let Some(end) = memchr::memchr(b'\n', bytes) else {
            if self.partial.len() + bytes.len() > MAX_LINE_BYTES {
                return Err(Ambiguous);
            }
            self.partial.extend_from_slice(bytes);
            return Ok(bytes.len());
        };
        if self.partial.is_empty() {
            self.take_line(&bytes[..end])?;
        } else {
            let mut line = std::mem::take(&mut self.partial);
            line.extend_from_slice(&bytes[..end]);
            self.take_line(&line)?;
            line.clear();
            self.partial = line;
        }
        Ok(end + 1)
    }

    /// Passes the poison on, then the end of the connection.
    fn poison(&mut self, buffer: &mut ReadBuf<'_>) {
        if let Place::Refused { poison } = &mut self.place {
            let (now, later) = poison.split_at(poison.len().min(buffer.remaining()));
            buffer.put_slice(now);
            *poison = later;
        }
    }

    /// A line without its line feed.
    fn take_line(&mut self, line: &[u8]) -> Result<(), Ambiguous> {
        let line = line.strip_suffix(b"\r").ok_or(Ambiguous)?;
        self.place = match self.place {
            // Empty lines before a request are ignored by everyone (RFC 9112, 2.2).
            Place::RequestLine if line.is_empty() => Place::RequestLine,
            Place::RequestLine if self.is_first && line == HTTP2 => Place::Frames,
            Place::RequestLine => {
                self.is_first = false;
                self.head = Head::NoBody;
                Place::Field
            }
            Place::Field if line.is_empty() => match self.head {
                Head::NoBody | Head::Length(0) => Place::RequestLine,
                Head::Length(left) => Place::Body { left },
                Head::Chunked => Place::ChunkSize,
            },
            Place::Field => {
                self.take_field(line)?;
                Place::Field
            }
            Place::ChunkSize => match chunk_size(line)? {
                0 => Place::Trailer,
                left => Place::ChunkData { left },
            },
            Place::ChunkEnd if line.is_empty() => Place::ChunkSize,
            Place::Trailer if line.is_empty() => Place::RequestLine,
            Place::Trailer if !line.starts_with(b" ") && !line.starts_with(b"\t") => Place::Trailer,
            _ => return Err(Ambiguous),
        };
        Ok(())
    }

    fn take_field(&mut self, line: &[u8]) -> Result<(), Ambiguous> {
        // Only these begin so; a line that begins with a blank continues the one before, which may be one of them.
        let Some(b'c' | b'C' | b't' | b'T' | b' ' | b'\t') = line.first() else { return Ok(()) };
        let colon = memchr::memchr(b':', line).ok_or(Ambiguous)?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.trim_ascii() != name {
            return Err(Ambiguous);
        }
        let said = if name.eq_ignore_ascii_case(b"content-length") {
            Head::Length(decimal(value)?)
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Ambiguous);
            }
            Head::Chunked
        } else {
            return Ok(());
        };
        if self.head != Head::NoBody {
            return Err(Ambiguous);
        }
        self.head = said;
        Ok(())
    }
}

/// `1*DIGIT` (RFC 9110, 8.6).
fn decimal(value: &[u8]) -> Result<u64, Ambiguous> {
    if !value.iter().all(u8::is_ascii_digit) {
        return Err(Ambiguous);
    }
    std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()).ok_or(Ambiguous)
}

/// `1*HEXDIG`, then perhaps extensions (RFC 9112, 7.1).
fn chunk_size(line: &[u8]) -> Result<u64, Ambiguous> {
    let end = memchr::memchr(b';', line).unwrap_or(line.len());
    let digits = &line[..end];
    if digits.len() > MAX_SIZE_DIGITS || !digits.iter().all(u8::is_ascii_hexdigit) || line.contains(&b'\r') {
        return Err(Ambiguous);
    }
    std::str::from_utf8(digits).ok().and_then(|text| u64::from_str_radix(text, 16).ok()).ok_or(Ambiguous)
}

impl<S: AsyncRead + Unpin> AsyncRead for StrictFraming<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !matches!(self.place, Place::Refused { .. }) {
            let before = buffer.filled().len();
            std::task::ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
            if self.place == Place::Frames {
                return Poll::Ready(Ok(()));
            }
            let passed = self.follow(&buffer.filled()[before..]);
            buffer.set_filled(before + passed);
        }
        self.poison(buffer);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for StrictFraming<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is passed on of `sent`, read in pieces of `piece` bytes.
    fn passed(sent: &[u8], piece: usize) -> Vec<u8> {
        let mut framing = StrictFraming::new(());
        let mut read = vec![0; sent.len() + POISON.len()];
        let mut buffer = ReadBuf::new(&mut read);
        for piece in sent.chunks(piece) {
            let length = framing.follow(piece);
            buffer.put_slice(&piece[..length]);
            framing.poison(&mut buffer);
        }
        buffer.filled().to_vec()
    }

    fn is_passed(sent: &[u8]) -> bool {
        let whole = passed(sent, sent.len());
        for piece in [1, 2, 3, 7] {
            let is_whole = passed(sent, piece) == sent;
            assert_eq!(is_whole, whole == sent, "in pieces of {piece}: {:?}", sent.escape_ascii());
        }
        assert!(whole == sent || whole.ends_with(POISON), "{:?}", whole.escape_ascii());
        whole == sent
    }

    const BODY: &str = "POST / HTTP/1.1\r\nHost: a\r\n";

    #[test]
    fn what_has_one_reading_passes_untouched() {
        for rest in [
            "\r\n",
            "Content-Length: 3\r\n\r\na\nbGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "content-length:0\r\n\r\n\r\nGET / HTTP/1.1\r\n\r\n",
            "Transfer-Encoding: chunked\r\n\r\n3;x=\"y\"\r\na\nb\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
            "transfer-encoding:\tCHUNKED \r\n\r\nA\r\n0123456789\r\n000\r\nx-sum: 1\r\n\r\nGET / HTTP/1.1\r\n\r\n",
            "Cookie: a\r\nTE: trailers\r\n\r\n",
        ] {
            assert!(is_passed(format!("{BODY}{rest}").as_bytes()), "{rest:?}");
        }
        assert!(is_passed(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\n\n\r"), "HTTP/2");
    }

    #[test]
    fn what_has_two_readings_does_not_pass() {
        for rest in [
            "X: y\n\r\n",
            "X: y\r\n\n",
            "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n",
            "Content-Length: 3\r\nContent-Length: 3\r\n\r\n",
            "Content-Length: 3\r\nContent-Length: 4\r\n\r\n",
            "Content-Length: 3, 3\r\n\r\n",
            "Content-Length: +3\r\n\r\n",
            "Content-Length: -3\r\n\r\n",
            "Content-Length: 0x3\r\n\r\n",
            "Content-Length:\r\n\r\n",
            "Content-Length: 99999999999999999999\r\n\r\n",
            "Content-Length : 3\r\n\r\n",
            "Content-Length\t: 3\r\n\r\n",
            " Content-Length: 3\r\n\r\n",
            "Content-Length\r\n\r\n",
            "Transfer-Encoding: identity\r\n\r\n",
            "Transfer-Encoding: gzip, chunked\r\n\r\n",
            "Transfer-Encoding: xchunked\r\n\r\n",
            "Transfer-Encoding: chunked, chunked\r\n\r\n",
            "Transfer-Encoding: \"chunked\"\r\n\r\n",
            "Transfer-Encoding: \x0bchunked\r\n\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n",
            "Transfer-Encoding:\r\n chunked\r\n\r\n",
        ] {
            assert!(!is_passed(format!("{BODY}{rest}").as_bytes()), "{rest:?}");
        }
        for chunks in [
            "3\nabc\r\n0\r\n\r\n",
            "0x3\r\nabc\r\n0\r\n\r\n",
            "+3\r\nabc\r\n0\r\n\r\n",
            "-3\r\nabc\r\n0\r\n\r\n",
            "3 \r\nabc\r\n0\r\n\r\n",
            " 3\r\nabc\r\n0\r\n\r\n",
            "\r\nabc\r\n0\r\n\r\n",
            ";x\r\n\r\n",
            "3\r\nabcd\r\n0\r\n\r\n",
            "3\r\nab\r\n0\r\n\r\n",
            "3\r\nabc\n0\r\n\r\n",
            "3;a\rb\r\nabc\r\n0\r\n\r\n",
            "10000000000000003\r\nabc\r\n0\r\n\r\n",
            "0\r\nx: y\n\r\n",
            "0\r\nx: y\r\n z\r\n\r\n",
            "0\r\n\n",
        ] {
            let request = format!("{BODY}Transfer-Encoding: chunked\r\n\r\n{chunks}");
            assert!(!is_passed(request.as_bytes()), "{chunks:?}");
        }
    }

    #[test]
    fn nothing_that_follows_an_ambiguity_is_passed_on() {
        let sent = b"GET / HTTP/1.1\nHost: a\r\n\r\nGET /admin HTTP/1.1\r\nHost: a\r\n\r\n";
        assert_eq!(passed(sent, sent.len()), POISON);
        assert_eq!(passed(sent, 5), b"GET / HTTP\0\n\n");
    }

    #[test]
    fn a_line_without_end_is_not_kept() {
        let mut framing = StrictFraming::new(());
        for _ in 0..100 {
            framing.follow(&[b'x'; 1024]);
        }
        assert!(matches!(framing.place, Place::Refused { .. }));
        assert!(framing.partial.len() <= MAX_LINE_BYTES);
    }
}
