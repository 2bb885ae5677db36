//! One reading of where an HTTP/1 request ends. What two readers could read differently (RFC 9112, 11.2) never reaches
//! hyper, which accepts a bare line feed, both a length and a coding, or the same length twice. HTTP/2 passes untouched;
//! it has frames.
//!
//! A head is passed on when it is whole: then another request stands in the place of a refused one, which is answered
//! in its turn with the reason ([`HeadRefusal`]). What is wrong behind a head ends the body that is being read.
//!
//! It knows of lines, lengths and chunks only; everything else about a head is checked by hyper.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{Method, Uri};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How an HTTP/2 connection begins; no HTTP/1 method is followed by this.
const HTTP2: &[u8] = b"PRI * HTTP/2.0";

/// Longest head of a request in bytes, and longest line behind it.
pub(crate) const MAX_HEAD_BYTES: usize = 64 << 10;

/// Digits of a chunk's size: 60 bits.
const MAX_SIZE_DIGITS: usize = 15;

/// Takes the place of what has two readings in a body: nothing that hyper accepts outside of a chunk's bytes.
const POISON: &[u8] = b"\0\n\n";

/// The method of what takes the place of a refused head. Whoever sends it is refused as well.
const REFUSED: &str = "HVM-REFUSED";

/// Bytes that are read at once of a head that did not come whole.
const PIECE_BYTES: usize = 4 << 10;

/// A connection whose requests can be read in one way only.
#[derive(Debug)]
pub(crate) struct StrictFraming<S> {
    stream: S,
    place: Place,
    /// The beginning of a head, or of a line behind it, that is not whole yet; then what of it is still to be passed on.
    held: Vec<u8>,
    /// How much of `held` is whole lines, and how much was searched for the end of one.
    lines: usize,
    searched: usize,
    /// How much of `held` may be passed on.
    ready: usize,
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
    /// Only so much of what stands in the place of the rest is still to be passed on.
    Refused {
        instead: &'static [u8],
        is_head: bool,
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

/// A head that was not passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeadRefusal {
    #[error(
        "the request can be read in two ways: its lines must end in CR LF, no line may continue another, and the length \
         of its body must be said at most once, by one Content-Length in digits or by Transfer-Encoding: chunked"
    )]
    Ambiguous,
    #[error("the request's head is longer than {} KiB; send fewer or shorter header fields", MAX_HEAD_BYTES >> 10)]
    TooLong,
}

impl HeadRefusal {
    /// What takes the place of the head.
    const fn instead(self) -> &'static [u8] {
        match self {
            Self::Ambiguous => b"HVM-REFUSED /ambiguous HTTP/1.1\r\nConnection: close\r\n\r\n",
            Self::TooLong => b"HVM-REFUSED /long HTTP/1.1\r\nConnection: close\r\n\r\n",
        }
    }

    /// Whether a request stands in the place of a refused one, and why.
    pub(crate) fn of(method: &Method, uri: &Uri) -> Option<Self> {
        (method.as_str() == REFUSED)
            .then(|| if uri.path() == "/long" { Self::TooLong } else { Self::Ambiguous })
    }
}

/// There are two readings.
#[derive(Debug, PartialEq, Eq)]
struct Ambiguous;

impl<S> StrictFraming<S> {
    pub(crate) const fn new(stream: S) -> Self {
        Self {
            stream,
            place: Place::RequestLine,
            held: Vec::new(),
            lines: 0,
            searched: 0,
            ready: 0,
            head: Head::NoBody,
            is_first: true,
        }
    }

    /// Follows the requests through what begins where the last whole part ended; returns how much of it is whole.
    /// `lines` and `searched` say how much of it was looked at before, and are left for the next time.
    fn follow(&mut self, bytes: &[u8]) -> usize {
        let mut whole = 0;
        let mut at = std::mem::take(&mut self.lines);
        let mut searched = std::mem::take(&mut self.searched);
        while at < bytes.len() {
            match &mut self.place {
                Place::Frames => return bytes.len(),
                Place::Refused { .. } => return whole,
                Place::Body { left } | Place::ChunkData { left } => {
                    let here = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len() - at);
                    at += here;
                    *left -= here as u64;
                    match self.place {
                        Place::Body { left: 0 } => self.place = Place::RequestLine,
                        Place::ChunkData { left: 0 } => self.place = Place::ChunkEnd,
                        _ => {}
                    }
                    whole = at;
                }
                _ => {
                    let from = at.max(searched);
                    let end = memchr::memchr(b'\n', &bytes[from..]).map(|end| from + end);
                    if end.unwrap_or(bytes.len()) - whole > MAX_HEAD_BYTES {
                        self.refuse(HeadRefusal::TooLong);
                        return whole;
                    }
                    let Some(end) = end else {
                        searched = bytes.len();
                        break;
                    };
                    if self.take_line(&bytes[at..end]) == Err(Ambiguous) {
                        self.refuse(HeadRefusal::Ambiguous);
                        return whole;
                    }
                    at = end + 1;
                    if self.place != Place::Field {
                        whole = at;
                    }
                }
            }
        }
        self.lines = at - whole;
        self.searched = searched.saturating_sub(whole);
        whole
    }

    fn refuse(&mut self, why: HeadRefusal) {
        let is_head = matches!(self.place, Place::RequestLine | Place::Field);
        self.place = Place::Refused { instead: if is_head { why.instead() } else { POISON }, is_head };
    }

    /// Takes what was read where nothing is held; returns how much of it may be passed on.
    fn take(&mut self, bytes: &[u8]) -> usize {
        let whole = self.follow(bytes);
        if !matches!(self.place, Place::Refused { .. }) {
            self.held.extend_from_slice(&bytes[whole..]);
        }
        whole
    }

    /// Takes what was read behind what is held.
    fn take_more(&mut self, bytes: &[u8]) {
        let mut held = std::mem::take(&mut self.held);
        held.extend_from_slice(bytes);
        self.ready = self.follow(&held);
        if matches!(self.place, Place::Refused { .. }) {
            held.truncate(self.ready);
        }
        self.held = held;
    }

    /// Passes on what is whole of what was held, and what stands in the place of the rest. Whether there was any.
    fn pass(&mut self, buffer: &mut ReadBuf<'_>) -> bool {
        let before = buffer.filled().len();
        if self.ready > 0 {
            let now = self.ready.min(buffer.remaining());
            buffer.put_slice(&self.held[..now]);
            self.held.drain(..now);
            self.ready -= now;
            if self.held.is_empty() {
                self.held = Vec::new();
            }
        }
        if let Place::Refused { instead, .. } = &mut self.place
            && self.ready == 0
        {
            let (now, later) = instead.split_at(instead.len().min(buffer.remaining()));
            buffer.put_slice(now);
            *instead = later;
        }
        buffer.filled().len() > before
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

impl<S: AsyncRead + Unpin> StrictFraming<S> {
    /// Reads what follows a refused head and passes nothing of it on, not even its end: hyper would take that for a
    /// client that went away, and bytes that nobody read would make the system cut the answer off.
    fn poll_discard(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut piece = [0; PIECE_BYTES];
            let mut piece = ReadBuf::new(&mut piece);
            std::task::ready!(Pin::new(&mut self.stream).poll_read(context, &mut piece))?;
            if piece.filled().is_empty() {
                return Poll::Pending;
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for StrictFraming<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        loop {
            if this.pass(buffer) {
                return Poll::Ready(Ok(()));
            }
            match this.place {
                Place::Refused { is_head: true, .. } => return this.poll_discard(context),
                Place::Refused { is_head: false, .. } => return Poll::Ready(Ok(())),
                _ => {}
            }
            if this.held.is_empty() {
                std::task::ready!(Pin::new(&mut this.stream).poll_read(context, buffer))?;
                let read = &buffer.filled()[before..];
                if this.place == Place::Frames || read.is_empty() {
                    return Poll::Ready(Ok(()));
                }
                let whole = this.take(read);
                buffer.set_filled(before + whole);
                if whole > 0 {
                    return Poll::Ready(Ok(()));
                }
            } else {
                let mut piece = [0; PIECE_BYTES];
                let mut piece = ReadBuf::new(&mut piece);
                std::task::ready!(Pin::new(&mut this.stream).poll_read(context, &mut piece))?;
                if piece.filled().is_empty() {
                    return Poll::Ready(Ok(()));
                }
                this.take_more(piece.filled());
            }
        }
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
mod tests;
