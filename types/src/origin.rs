//! Origins: scheme, host and port of an HTTP server (RFC 6454), as a deployment grants them and the egress
//! compares them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// The scheme of an origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Without TLS.
    Http,
    /// With TLS.
    Https,
}

impl Scheme {
    /// The name in a URL.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port where a URL names none.
    #[must_use]
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// The host of an origin, in its one canonical form: two that mean the same are equal.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum OriginHost {
    /// A DNS name in lower case, without the dot at the end.
    Name(String),
    /// An address.
    Address(IpAddr),
}

/// Scheme, host and port. The port is always known, so `https://a` and `https://a:443` are equal.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin {
    /// How it is spoken to.
    pub scheme: Scheme,
    /// Where it is.
    pub host: OriginHost,
    /// On which port.
    pub port: u16,
}

/// A text that is no origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseOriginError {
    /// Neither `http://` nor `https://`.
    #[error("does not begin with `http://` or `https://`")]
    Scheme,
    /// User, path, query or fragment beside scheme, host and port.
    #[error("holds more than a scheme, a host and a port")]
    Surplus,
    /// The port is no number from 1 to 65535.
    #[error("has a port that is no number from 1 to 65535")]
    Port,
    /// The host is neither a DNS name nor an address.
    #[error("has a host that is neither a DNS name (in ASCII, no `*`) nor an IP address in its usual form")]
    Host,
}

impl Origin {
    /// An origin of the parts of a URL. The port is the scheme's own where none is given.
    ///
    /// # Errors
    /// Where `host` is none; see [`OriginHost`].
    pub fn new(scheme: Scheme, host: &str, port: Option<u16>) -> Result<Self, ParseOriginError> {
        let port = port.unwrap_or_else(|| scheme.default_port());
        if port == 0 {
            return Err(ParseOriginError::Port);
        }
        Ok(Self { scheme, host: host.parse()?, port })
    }
}

impl FromStr for Origin {
    type Err = ParseOriginError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (scheme, rest) = text.split_once("://").ok_or(ParseOriginError::Scheme)?;
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            _ => return Err(ParseOriginError::Scheme),
        };
        if rest.contains(['/', '\\', '?', '#', '@']) {
            return Err(ParseOriginError::Surplus);
        }
        let (host, port) = match rest.rsplit_once(':') {
            // The colons of `[::1]` are the address's own.
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            _ => (rest, None),
        };
        let port = match port {
            // `+80` would be taken by the number parser.
            Some(port) if !port.is_empty() && port.bytes().all(|c| c.is_ascii_digit()) => {
                Some(port.parse().map_err(|_| ParseOriginError::Port)?)
            }
            Some(_) => return Err(ParseOriginError::Port),
            None => None,
        };
        Self::new(scheme, host, port)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.as_str(), self.host)?;
        if self.port == self.scheme.default_port() { Ok(()) } else { write!(f, ":{}", self.port) }
    }
}

impl FromStr for OriginHost {
    type Err = ParseOriginError;

    /// Reads a DNS name, a dotted IPv4 address or an IPv6 address in brackets. Other forms of IPv4
    /// addresses (`2130706433`, `0x7f.1`, `0177.0.0.1`), which some resolvers take, are refused, because
    /// they only ever hide an address.
    fn from_str(host: &str) -> Result<Self, Self::Err> {
        if let Some(address) = host.strip_prefix('[') {
            let address = address.strip_suffix(']').ok_or(ParseOriginError::Host)?;
            let address: Ipv6Addr = address.parse().map_err(|_| ParseOriginError::Host)?;
            return Ok(Self::Address(address.into()));
        }
        if let Ok(address) = host.parse::<Ipv4Addr>() {
            return Ok(Self::Address(address.into()));
        }
        let label = |label: &str| {
            let edges = !label.starts_with('-') && !label.ends_with('-');
            let inside = label.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-');
            (1..=63).contains(&label.len()) && edges && inside
        };
        let last = host.rsplit('.').next().unwrap_or(host);
        let numeric = last.bytes().all(|c| c.is_ascii_digit()) || last.to_ascii_lowercase().starts_with("0x");
        if host.len() > 253 || numeric || !host.split('.').all(label) {
            return Err(ParseOriginError::Host);
        }
        Ok(Self::Name(host.to_ascii_lowercase()))
    }
}

impl fmt::Display for OriginHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(IpAddr::V4(address)) => address.fmt(f),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_has_one_form() {
        for (text, one) in [
            ("https://rates.example", "https://rates.example"),
            ("HTTPS://Rates.Example:443", "https://rates.example"),
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("http://[0:0::1]:80", "http://[::1]"),
            ("http://localhost:3000", "http://localhost:3000"),
        ] {
            assert_eq!(text.parse::<Origin>().map(|origin| origin.to_string()), Ok(one.to_owned()));
        }
    }

    #[test]
    fn what_is_no_origin_is_refused_with_its_reason() {
        use ParseOriginError::{Host, Port, Scheme, Surplus};
        for (text, error) in [
            ("rates.example", Scheme),
            ("ftp://rates.example", Scheme),
            ("https://rates.example/", Surplus),
            ("https://rates.example/v1", Surplus),
            ("https://user@rates.example", Surplus),
            ("https://rates.example?x", Surplus),
            ("https://a:0", Port),
            ("https://a:65536", Port),
            ("https://a:", Port),
            ("https://a:+80", Port),
            ("https://", Host),
            ("https://*.example", Host),
            ("https://rates.example.", Host),
            ("https://räte.example", Host),
            ("http://2130706433", Host),
            ("http://0x7f.1", Host),
            ("http://0x7f000001", Host),
            ("http://0177.0.0.1", Host),
            ("http://127.1", Host),
            ("http://[::1", Host),
            ("http://[fe80::1%eth0]", Host),
            ("http://::1", Host),
        ] {
            assert_eq!(text.parse::<Origin>(), Err(error), "{text}");
        }
    }
}
