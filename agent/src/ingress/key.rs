//! The partition key of a request, and the partition that a key belongs to.
//!
//! Both are part of the product's contract: changing either would send keys to partitions that do not hold
//! their state.

use std::borrow::Cow;

use http::HeaderMap;
use hvm_types::{Digest, KeySource};

/// The longest key in bytes, after decoding.
pub const MAX_KEY_BYTES: usize = 1024;

/// The partition of a key: the first eight bytes of the key's SHA-256 digest as a big-endian number, modulo
/// the number of partitions. Never changed; see docs/decisions/0040-agent.md.
///
/// # Panics
/// With no copies: a group has at least one.
#[must_use]
pub fn partition_of(key: &[u8], copies: u32) -> u32 {
    assert!(copies > 0, "a group has at least one copy");
    let digest = Digest::of(key);
    let mut first = [0; 8];
    first.copy_from_slice(&digest.as_bytes()[..8]);
    let partition = u64::from_be_bytes(first) % u64::from(copies);
    u32::try_from(partition).expect("a remainder is smaller than its divisor")
}

/// A request whose key can't be told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum KeyError {
    #[error("the partition key is missing: it is expected in {place}")]
    Missing { place: String },
    #[error("the partition key in {place} stands there more than once: send it once")]
    Repeated { place: String },
    #[error("the partition key in {place} is not valid: percent-encode it as RFC 3986 says")]
    Malformed { place: String },
    #[error("the partition key in {place} is longer than {MAX_KEY_BYTES} bytes")]
    TooLong { place: String },
}

/// Takes the key out of a request, decoded: bytes, because nothing says that a key is text.
pub(crate) fn extract<'r>(
    source: &KeySource,
    path: &'r str,
    query: Option<&'r str>,
    headers: &'r HeaderMap,
) -> Result<Cow<'r, [u8]>, KeyError> {
    let place = || describe(source);
    let key = match source {
        KeySource::PathSegment(number) => {
            let raw = segment(path, *number).ok_or_else(|| KeyError::Missing { place: place() })?;
            decode(raw, Plus::IsPlus).ok_or_else(|| KeyError::Malformed { place: place() })?
        }
        KeySource::Header(name) => {
            let mut values = headers.get_all(name.as_str()).iter();
            let value = values.next().ok_or_else(|| KeyError::Missing { place: place() })?;
            if values.next().is_some() {
                return Err(KeyError::Repeated { place: place() });
            }
            Cow::Borrowed(value.as_bytes().trim_ascii())
        }
        KeySource::Query(name) => {
            let raw = parameter(query.unwrap_or(""), name, place)?;
            decode(raw, Plus::IsSpace).ok_or_else(|| KeyError::Malformed { place: place() })?
        }
    };
    if key.is_empty() {
        return Err(KeyError::Missing { place: place() });
    }
    if key.len() > MAX_KEY_BYTES {
        return Err(KeyError::TooLong { place: place() });
    }
    Ok(key)
}

/// Where a key stands, for people.
pub(crate) fn describe(source: &KeySource) -> String {
    match source {
        KeySource::PathSegment(number) => format!("segment {number} of the path"),
        KeySource::Header(name) => format!("the header `{name}`"),
        KeySource::Query(name) => format!("the query parameter `{name}`"),
    }
}

fn segment(path: &str, number: u32) -> Option<&str> {
    let index = usize::try_from(number.checked_sub(1)?).ok()?;
    path.strip_prefix('/')?.split('/').nth(index)
}

/// The one value of a parameter, still encoded. Two would leave open which of them the guest believes.
fn parameter<'q>(query: &'q str, name: &str, place: impl Fn() -> String) -> Result<&'q str, KeyError> {
    let mut values = query.split('&').filter_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(key, Plus::IsSpace)?.as_ref() == name.as_bytes()).then_some(value)
    });
    let value = values.next().ok_or_else(|| KeyError::Missing { place: place() })?;
    if values.next().is_some() {
        return Err(KeyError::Repeated { place: place() });
    }
    Ok(value)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Plus {
    IsPlus,
    IsSpace,
}

/// Percent-decodes (RFC 3986, 2.1); in queries `+` is a space (URL standard, form encoding).
fn decode(text: &str, plus: Plus) -> Option<Cow<'_, [u8]>> {
    let encoded = |byte: &u8| *byte == b'%' || (*byte == b'+' && plus == Plus::IsSpace);
    if !text.as_bytes().iter().any(encoded) {
        return Some(Cow::Borrowed(text.as_bytes()));
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let high = char::from(bytes.next()?).to_digit(16)?;
                let low = char::from(bytes.next()?).to_digit(16)?;
                u8::try_from(high << 4 | low).ok()?
            }
            b'+' if plus == Plus::IsSpace => b' ',
            other => other,
        });
    }
    Some(Cow::Owned(decoded))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed with `printf %s KEY | sha256sum`: the contract, not this code, is what they hold.
    #[test]
    fn a_key_belongs_to_the_partition_that_the_published_vectors_name() {
        assert_eq!(partition_of(b"", 16), u32::try_from(0xe3b0_c442_98fc_1c14_u64 % 16).expect("small"));
        assert_eq!(partition_of(b"abc", 7), u32::try_from(0xba78_16bf_8f01_cfea_u64 % 7).expect("small"));
        assert_eq!(partition_of(b"abc", 65_536), 0xcfea);
        assert_eq!(partition_of(b"anything", 1), 0);
    }

    #[test]
    fn keys_spread_over_all_partitions() {
        let mut hit = [0_u32; 16];
        for number in 0..1_600 {
            let partition = partition_of(format!("account-{number}").as_bytes(), 16);
            hit[usize::try_from(partition).expect("small")] += 1;
        }
        assert!(hit.iter().all(|count| (50..200).contains(count)), "{hit:?}");
    }

    fn key(source: KeySource, path: &str, query: Option<&str>) -> Result<Vec<u8>, KeyError> {
        extract(&source, path, query, &HeaderMap::new()).map(Cow::into_owned)
    }

    #[test]
    fn a_path_segment_is_counted_from_one_and_decoded() {
        let at = KeySource::PathSegment;
        assert_eq!(key(at(2), "/accounts/42/history", None), Ok(b"42".to_vec()));
        assert_eq!(key(at(1), "/accounts", None), Ok(b"accounts".to_vec()));
        assert_eq!(key(at(2), "/accounts/a%2Fb+c%20d", None), Ok(b"a/b+c d".to_vec()));
        for missing in ["/accounts", "/accounts/", "/accounts//x"] {
            let error = key(at(2), missing, None).expect_err("no key");
            assert_eq!(error, KeyError::Missing { place: "segment 2 of the path".to_owned() });
        }
        for malformed in ["/a/%", "/a/%4", "/a/%zz", "/a/%+1"] {
            assert!(matches!(key(at(2), malformed, None), Err(KeyError::Malformed { .. })), "{malformed}");
        }
    }

    #[test]
    fn a_query_parameter_is_decoded_and_must_stand_there_once() {
        let named = || KeySource::Query("user".to_owned());
        assert_eq!(key(named(), "/", Some("a=1&user=J%C3%B6rg+B&z")), Ok("Jörg B".as_bytes().to_vec()));
        assert!(matches!(key(named(), "/", None), Err(KeyError::Missing { .. })));
        assert!(matches!(key(named(), "/", Some("user=")), Err(KeyError::Missing { .. })));
        assert!(matches!(key(named(), "/", Some("user=a&user=b")), Err(KeyError::Repeated { .. })));
        assert!(matches!(key(named(), "/", Some("user=a&%75ser=b")), Err(KeyError::Repeated { .. })));
    }

    #[test]
    fn a_header_must_stand_there_once() {
        let source = KeySource::Header("X-Tenant".to_owned());
        let mut headers = HeaderMap::new();
        let take = |headers: &HeaderMap| extract(&source, "/", None, headers).map(Cow::into_owned);
        assert!(matches!(take(&headers), Err(KeyError::Missing { .. })));
        headers.append("x-tenant", " blue ".parse().expect("a value"));
        assert_eq!(take(&headers), Ok(b"blue".to_vec()));
        headers.append("x-tenant", "red".parse().expect("a value"));
        assert!(matches!(take(&headers), Err(KeyError::Repeated { .. })));
    }

    #[test]
    fn a_key_is_bounded() {
        let path = format!("/a/{}", "x".repeat(MAX_KEY_BYTES + 1));
        assert!(matches!(key(KeySource::PathSegment(2), &path, None), Err(KeyError::TooLong { .. })));
    }
}
