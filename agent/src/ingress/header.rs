//! Header fields that belong to one connection or to us, and must not travel on.

use http::header::{CONNECTION, HeaderMap, HeaderName, HeaderValue, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};

/// Set on a request that another host's ingress forwarded, to that host's name. A request that carries it is
/// not forwarded again, whoever set it: that is all it does.
pub(crate) const HOP: HeaderName = HeaderName::from_static("hvm-hop");

/// Set on an answer: the partition that gave it.
pub(crate) const PARTITION: HeaderName = HeaderName::from_static("hvm-partition");

/// RFC 9110, 7.6.1, with the two names that predate it.
static HOP_BY_HOP: [HeaderName; 7] = [
    CONNECTION,
    TE,
    TRAILER,
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
/// demands one and there is none, or where there are several.
pub(crate) fn asked_host(parts: &http::request::Parts) -> Result<Option<String>, AskedHostError> {
    if let Some(host) = parts.uri.host() {
        return Ok(Some(host.to_ascii_lowercase()));
    }
    let mut values = parts.headers.get_all(http::header::HOST).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => Ok(Some(without_port(value).ok_or(AskedHostError)?)),
        (None, _) if parts.version < http::Version::HTTP_11 => Ok(None),
        _ => Err(AskedHostError),
    }
}

/// A request that does not say, once, which host it asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a request must carry exactly one valid Host header")]
pub(crate) struct AskedHostError;

fn without_port(value: &HeaderValue) -> Option<String> {
    let authority: http::uri::Authority = value.to_str().ok()?.parse().ok()?;
    Some(authority.host().to_ascii_lowercase())
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
        assert_eq!(asked("http://A.example/x", &["b.example"], Version::HTTP_11), name("a.example"));
        assert_eq!(asked("/", &[], Version::HTTP_10), Ok(None));
        assert_eq!(asked("/", &[], Version::HTTP_11), Err(AskedHostError));
        assert_eq!(asked("/", &["a", "b"], Version::HTTP_11), Err(AskedHostError));
        assert_eq!(asked("/", &["a b"], Version::HTTP_11), Err(AskedHostError));
    }
}
