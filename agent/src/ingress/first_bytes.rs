//! A limit on the time until a connection's first bytes tell which version of HTTP it speaks. hyper limits
//! what comes after that and waits for these bytes forever.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// How an HTTP/2 connection begins (RFC 9113, 3.4); no HTTP/1 request begins so.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A connection that fails to read when its first bytes take too long.
#[derive(Debug)]
pub(crate) struct FirstBytes<S> {
    stream: S,
    /// How much of the preface was read; only counted while there is a deadline.
    matched: usize,
    /// `None` once the version is known.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl<S> FirstBytes<S> {
    pub(crate) fn new(stream: S, limit: Duration) -> Self {
        Self { stream, matched: 0, deadline: Some(Box::pin(tokio::time::sleep(limit))) }
    }

    fn saw(&mut self, bytes: &[u8]) {
        let rest = &PREFACE[self.matched..];
        self.matched += bytes.len().min(rest.len());
        let is_open = !bytes.is_empty() && bytes.len() < rest.len() && rest.starts_with(bytes);
        if !is_open {
            self.deadline = None;
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for FirstBytes<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        let Some(deadline) = &mut self.deadline else { return read };
        if read.is_pending() {
            std::task::ready!(deadline.as_mut().poll(context));
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        self.saw(&buffer.filled()[before..]);
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for FirstBytes<S> {
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
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    const LIMIT: Duration = Duration::from_millis(20);

    /// Reads until `length` bytes are there or reading fails.
    async fn read(sent: &[&[u8]], length: usize) -> io::Result<Vec<u8>> {
        let (mut client, server) = tokio::io::duplex(1024);
        let mut server = FirstBytes::new(server, LIMIT);
        let mut bytes = vec![0; length];
        let reading = async { server.read_exact(&mut bytes).await };
        let sending = async {
            for part in sent {
                client.write_all(part).await.expect("room");
                tokio::time::sleep(LIMIT * 2).await;
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            result = reading => result?,
            () = sending => unreachable!("sending never ends"),
        };
        Ok(bytes)
    }

    #[tokio::test]
    async fn a_connection_that_stays_silent_or_stops_inside_the_preface_fails() {
        for sent in [vec![], vec![&b"PRI"[..]], vec![&b"PRI"[..], b" * HTTP"]] {
            let error = read(&sent, 24).await.expect_err("it takes too long");
            assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{sent:?}");
        }
    }

    /// The rest is sent after the limit.
    #[tokio::test]
    async fn a_connection_whose_version_is_known_is_not_limited_here() {
        let parts: [&[u8]; 3] = [b"PRO", b"PFIND /", b" HTTP/1.1\r\n"];
        assert_eq!(read(&parts, 21).await.expect("read"), b"PROPFIND / HTTP/1.1\r\n");
        let parts: [&[u8]; 3] = [PREFACE, b"more", b"and more"];
        assert_eq!(read(&parts, 36).await.expect("read").len(), 36);
    }
}
