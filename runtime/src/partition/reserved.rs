//! What is below `/.well-known/hvm/` is between the host and its guests: nobody else can ask for it, whatever way they
//! write it.

use crate::RequestError;

const WELL_KNOWN: &[u8] = b".well-known";
const OURS: &[u8] = b"hvm";

/// Refuses a path, or the name of a call, that a guest could take for one of the host's own.
pub(super) fn check(path: &str) -> Result<(), RequestError> {
    // Nearly all paths end here: ours needs a segment that begins with a dot, or hides it.
    let mut before = b'/';
    let suspicious = path.bytes().any(|byte| {
        let found = byte == b'%' || (byte == b'.' && matches!(before, b'/' | b'\\'));
        before = byte;
        found
    });
    if suspicious && is_ours(path) { Err(RequestError::Reserved) } else { Ok(()) }
}

fn is_ours(path: &str) -> bool {
    let mut decoded = path.as_bytes().to_vec();
    // Some readers decode twice.
    for _ in 0..3 {
        decoded = decode(&decoded);
    }
    let mut segments: Vec<&[u8]> = Vec::new();
    for segment in decoded.split(|byte| matches!(byte, b'/' | b'\\')) {
        match segment {
            b"" | b"." => {}
            b".." => drop(segments.pop()),
            segment => segments.push(segment),
        }
        // A reader may stop at any `..` that follows.
        if let [first, second, ..] = segments.as_slice()
            && first.eq_ignore_ascii_case(WELL_KNOWN)
            && second.eq_ignore_ascii_case(OURS)
        {
            return true;
        }
    }
    false
}

fn decode(path: &[u8]) -> Vec<u8> {
    let digit = |at: usize| char::from(*path.get(at)?).to_digit(16);
    let mut decoded = Vec::with_capacity(path.len());
    let mut at = 0;
    while let Some(&byte) = path.get(at) {
        let escaped = (byte == b'%').then(|| Some(digit(at + 1)? * 16 + digit(at + 2)?)).flatten();
        match escaped.and_then(|value| u8::try_from(value).ok()) {
            Some(value) => {
                decoded.push(value);
                at += 3;
            }
            None => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_way_to_write_the_hosts_own_paths_passes() {
        for path in [
            "/.well-known/hvm/migrate",
            "/.well-known/hvm",
            ".well-known/hvm/migrate",
            "//.well-known//hvm/x",
            "/./.well-known/hvm/",
            "/a/../.well-known/hvm/migrate",
            "/%2ewell-known/hvm/migrate",
            "/%2Ewell%2dknown%2fhvm/migrate",
            "/%252ewell-known/hvm/migrate",
            "/.Well-Known/HVM/migrate",
            "/a\\..\\.well-known\\hvm",
            "/a/%2e%2e/.well-known/hvm/migrate",
            "/.well-known/hvm/../../a",
        ] {
            assert_eq!(check(path), Err(RequestError::Reserved), "{path}");
        }
    }

    #[test]
    fn other_paths_pass() {
        for path in [
            "/",
            "",
            "increment",
            "/.well-known/acme-challenge/x",
            "/a/.well-known/hvm/migrate",
            "/.well-known/hvm2/x",
            "/well-known/hvm/migrate",
            "/100%/hvm",
            "/%",
            "/hvm/migrate",
        ] {
            assert_eq!(check(path), Ok(()), "{path}");
        }
    }
}
