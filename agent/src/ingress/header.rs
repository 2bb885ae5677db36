//! Header fields that belong to one connection or to us, and must not travel on.

use http::header::{CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, TE, TRANSFER_ENCODING, UPGRADE};
use http::uri::Authority;

/// Set on a request that another host's ingress forwarded, to that host's name. A request that carries it is
/// not forwarded again, whoever set it: that is all it does.
pub(crate) const HOP: HeaderName = HeaderName::from_static("hvm-hop");

/// Its value in a request that only asks whether this host still answers. No host is called so.
pub(crate) const PROBE: HeaderValue = HeaderValue::from_static("?");

/// Set on an answer: the partition that gave it.
pub(crate) const PARTITION: HeaderName = HeaderName::from_static("hvm-partition");

/// RFC 9110, 7.6.1, with the two names that predate it. `trailer` says what follows the body and travels with it.
static HOP_BY_HOP: [HeaderName; 6] = [
    CONNECTION,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Removes what concerns one connection only: the standard's fields and those that `Connection` names.
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    // Most messages have none of them: looking once through their few names is the cheapest way to tell.
    if !headers.keys().any(|name| HOP_BY_HOP.contains(name)) {
        return;
    }
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|name| name.trim().parse().ok())
            .collect();
        for name in named {
            headers.remove(name);
        }
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
}

/// The host a request asks for, in lower case and without its port (RFC 9112, 3.2); an error where HTTP/1.1
/// demands one and there is none, or where there are several, or two that differ.
pub(crate) fn asked_host(parts: &http::request::Parts) -> Result<Option<String>, AskedHostError> {
    let mut values = parts.headers.get_all(HOST).iter();
    let (value, more) = (values.next(), values.next());
    if more.is_some() {
        return Err(AskedHostError);
    }
    match (parts.uri.authority(), value) {
        // HTTP/2, or the absolute form, which may repeat it.
        (Some(authority), value) => {
            let same = value
                .is_none_or(|value| value.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes()));
            let asked = if same { host_of(authority) } else { None };
            asked.map(Some).ok_or(AskedHostError)
        }
        (None, Some(value)) => Ok(Some(without_port(value).ok_or(AskedHostError)?)),
        (None, None) if parts.version < http::Version::HTTP_11 => Ok(None),
        (None, None) => Err(AskedHostError),
    }
}

/// A request that does not say, once, which host it asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a request must say exactly once, in one valid Host header, which host it asks for")]
pub(crate) struct AskedHostError;

fn without_port(value: &HeaderValue) -> Option<String> {
    host_of(&value.to_str().ok()?.parse().ok()?)
}

/// A user's name has no place there (RFC 9110, 4.2.4).
fn host_of(authority: &Authority) -> Option<String> {
    (!authority.as_str().contains('@')).then(|| authority.host().to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    #[test]
    fn what_belongs_to_one_connection_is_removed() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Mine"),
            ("x-mine", "1"),
            ("te", "trailers"),
            ("upgrade", "h2c"),
            ("keep-alive", "timeout=5"),
            ("transfer-encoding", "chunked"),
            ("idempotency-key", "k"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        strip_hop_by_hop(&mut headers);
        let left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(left, ["idempotency-key"]);
    }

    fn asked(uri: &str, hosts: &[&str], version: http::Version) -> Result<Option<String>, AskedHostError> {
        let mut request = Request::builder().uri(uri).version(version);
        for host in hosts {
            request = request.header("host", *host);
        }
        asked_host(&request.body(()).expect("a request").into_parts().0)
    }

    #[test]
    fn the_asked_host_is_told_once_and_without_port() {
        use http::Version;
        let name = |name: &str| Ok(Some(name.to_owned()));
        assert_eq!(asked("/", &["Shop.Example:8080"], Version::HTTP_11), name("shop.example"));
        assert_eq!(asked("http://A.example/x", &["a.example"], Version::HTTP_11), name("a.example"));
        assert_eq!(asked("http://A.example/x", &[], Version::HTTP_2), name("a.example"));
        assert_eq!(asked("/", &[], Version::HTTP_10), Ok(None));
        assert_eq!(asked("/", &[], Version::HTTP_11), Err(AskedHostError));
        assert_eq!(asked("/", &["a", "b"], Version::HTTP_11), Err(AskedHostError));
        assert_eq!(asked("/", &["a", "a"], Version::HTTP_11), Err(AskedHostError));
        assert_eq!(asked("/", &["user@a"], Version::HTTP_11), Err(AskedHostError));
        assert_eq!(asked("http://a/", &["b"], Version::HTTP_11), Err(AskedHostError));
        assert_eq!(asked("http://a/", &["a", "a"], Version::HTTP_11), Err(AskedHostError));
        assert_eq!(asked("http://a:80/", &["a:81"], Version::HTTP_2), Err(AskedHostError));
        assert_eq!(asked("http://user@a/", &[], Version::HTTP_11), Err(AskedHostError));
        assert_eq!(asked("/", &["a b"], Version::HTTP_11), Err(AskedHostError));
    }
}
