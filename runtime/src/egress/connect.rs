//! From a granted origin to a connection: resolve once, check each address, connect to a checked one.

use std::net::SocketAddr;

use hvm_types::{Origin, OriginHost, Scheme};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use wasmtime_wasi_http::Error;

use super::failure;
use super::policy::{EgressPolicy, may_connect};
use super::stream::{Carrier, CountedStream};

/// The most addresses of a name that are tried.
const MAX_ADDRESSES: usize = 8;

/// A connection to `origin`, ready for HTTP/1.1, before `deadline`.
pub(super) async fn connect(
    policy: &EgressPolicy,
    origin: &Origin,
    deadline: Instant,
) -> Result<Box<dyn Carrier>, Error> {
    let resolved = timeout_at(deadline, resolve(policy, origin)).await.map_err(|_| Error::DnsTimeout)??;
    let addresses = checked(&origin.host, resolved)?;
    let stream = connect_any(&addresses, deadline).await?;
    // Requests are written whole: waiting for more to send only delays them.
    let _ = stream.set_nodelay(true);
    let stream = CountedStream::new(stream, policy.counters());
    match origin.scheme {
        Scheme::Http => Ok(Box::new(stream)),
        Scheme::Https => {
            let connector = TlsConnector::from(policy.tls());
            let handshake = connector.connect(server_name(&origin.host)?, stream);
            let stream = timeout_at(deadline, handshake).await.map_err(|_| Error::ConnectionTimeout)?;
            Ok(Box::new(stream.map_err(|error| failure::of_tls(&error))?))
        }
    }
}

async fn resolve(policy: &EgressPolicy, origin: &Origin) -> Result<Vec<SocketAddr>, Error> {
    let name = match &origin.host {
        OriginHost::Address(address) => return Ok(vec![SocketAddr::new(*address, origin.port)]),
        OriginHost::Name(name) => name.as_str(),
    };
    match super::lookup::lookup(&policy.lookups(), name, origin.port).await {
        Ok(addresses) => Ok(addresses),
        Err(error) => {
            tracing::debug!(%error, name, "an outgoing request's host was not resolved");
            Err(Error::DnsError { rcode: None, info_code: None })
        }
    }
}

/// The addresses among `resolved` to which `host` may lead.
pub(super) fn checked(host: &OriginHost, resolved: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, Error> {
    if resolved.is_empty() {
        return Err(Error::DestinationNotFound);
    }
    let (mut allowed, refused): (Vec<_>, Vec<_>) =
        resolved.into_iter().partition(|address| may_connect(host, address.ip()));
    if !refused.is_empty() {
        tracing::debug!(%host, ?refused, "addresses of an outgoing request's host were refused");
    }
    if allowed.is_empty() {
        return Err(Error::DestinationIpProhibited);
    }
    allowed.truncate(MAX_ADDRESSES);
    Ok(allowed)
}

/// The first of `addresses` that answers. Each has its share of the time left, so that a silent one does
/// not use up that of the others.
async fn connect_any(addresses: &[SocketAddr], deadline: Instant) -> Result<TcpStream, Error> {
    let mut last = Error::DestinationNotFound;
    for (address, waiting) in addresses.iter().zip((1..=addresses.len()).rev()) {
        let now = Instant::now();
        let shares = u32::try_from(waiting).unwrap_or(u32::MAX);
        let share = now + deadline.saturating_duration_since(now) / shares;
        last = match timeout_at(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => failure::of_connect(error),
            Err(_) => Error::ConnectionTimeout,
        };
    }
    Err(last)
}

fn server_name(host: &OriginHost) -> Result<ServerName<'static>, Error> {
    match host {
        OriginHost::Address(address) => Ok(ServerName::from(*address)),
        OriginHost::Name(name) => {
            ServerName::try_from(name.clone()).map_err(|_| Error::HttpRequestUriInvalid)
        }
    }
}
