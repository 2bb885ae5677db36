//! What passes, and what is refused, in pieces of any length.

use super::*;

/// What is passed on of `sent`, read in pieces of `piece` bytes.
fn passed(sent: &[u8], piece: usize) -> Vec<u8> {
    let mut client = sent;
    let mut passed = Vec::new();
    let mut framing = StrictFraming::new(tokio::io::empty());
    while !client.is_empty() {
        let (now, later) = client.split_at(piece.min(client.len()));
        client = later;
        let mut read = vec![0; MAX_HEAD_BYTES + now.len()];
        let mut buffer = ReadBuf::new(&mut read);
        if matches!(framing.place, Place::Refused { .. }) {
            continue;
        } else if framing.held.is_empty() {
            let whole = framing.take(now);
            passed.extend_from_slice(&now[..whole]);
        } else {
            framing.take_more(now);
        }
        framing.pass(&mut buffer);
        passed.extend_from_slice(buffer.filled());
    }
    passed
}

fn is_passed(sent: &[u8]) -> bool {
    let whole = passed(sent, sent.len());
    for piece in [1, 2, 3, 7] {
        let is_whole = passed(sent, piece) == sent;
        assert_eq!(is_whole, whole == sent, "in pieces of {piece}: {:?}", sent.escape_ascii());
    }
    let ends = [POISON, HeadRefusal::Ambiguous.instead()];
    assert!(whole == sent || ends.iter().any(|end| whole.ends_with(end)), "{:?}", whole.escape_ascii());
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
    for piece in [1, 5, sent.len()] {
        assert_eq!(passed(sent, piece), HeadRefusal::Ambiguous.instead());
    }
    let second = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let both = [&second[..], sent].concat();
    assert_eq!(passed(&both, 7), [second, HeadRefusal::Ambiguous.instead()].concat());
}

#[test]
fn a_head_without_end_is_not_kept() {
    for line in [&b"x"[..], b"X: y\r\n", b"X: a long value of a field\r\n"] {
        let mut framing = StrictFraming::new(());
        framing.take(b"GET / HTTP/1.1\r\n");
        for _ in 0..MAX_HEAD_BYTES {
            if matches!(framing.place, Place::Refused { .. }) {
                break;
            }
            framing.take_more(line);
            assert!(framing.held.len() <= MAX_HEAD_BYTES + line.len());
        }
        assert_eq!(
            framing.place,
            Place::Refused { instead: HeadRefusal::TooLong.instead(), is_head: true },
            "{:?}",
            line.escape_ascii()
        );
        assert!(framing.held.is_empty());
    }
}
