//! What the deployment granted: a list of origins, and how many connections at once.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, OnceLock};

use hvm_types::{Origin, OriginHost, ParseOriginError};
use rustls::{ClientConfig, RootCertStore};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

use super::address;
use crate::OpenFiles;
use crate::meter::MeterCell;

/// The most origins of one policy.
pub const MAX_GRANTS: usize = 256;
/// The most connections that one policy has open. A request beyond them fails with
/// `connection-limit-reached` instead of waiting.
pub const MAX_CONNECTIONS: usize = 64;

/// Names that one policy looks up at the same time; one more waits for them.
const MAX_LOOKUPS: usize = 2;

/// Room for the connections of all policies together.
static HOST_CONNECTIONS: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(OpenFiles::read().outgoing()));

/// The origins that a guest may call. Clones share the limit of connections and the counters; make one
/// policy for what shall be limited and counted together.
#[derive(Debug, Clone)]
pub struct EgressPolicy {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    origins: HashSet<Origin>,
    connections: Arc<Semaphore>,
    lookups: Arc<Semaphore>,
    tls: Arc<ClientConfig>,
    traffic: Arc<TrafficCounters>,
}

/// Bytes that crossed the network for a policy, TLS included, since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// From the guest to others.
    pub sent_bytes: u64,
    /// From others to the guest.
    pub received_bytes: u64,
}

#[derive(Debug, Default)]
pub(super) struct TrafficCounters {
    sent_bytes: AtomicU64,
    received_bytes: AtomicU64,
    /// The partition's meter, where there is one.
    meter: OnceLock<Arc<MeterCell>>,
}

impl TrafficCounters {
    pub(super) fn add_sent(&self, bytes: usize) {
        self.sent_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        if let Some(meter) = self.meter.get() {
            meter.count_sent(bytes);
        }
    }

    pub(super) fn add_received(&self, bytes: usize) {
        self.received_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        if let Some(meter) = self.meter.get() {
            meter.count_received(bytes);
        }
    }
}

/// Room for one connection.
#[derive(Debug)]
pub(super) struct Admitted {
    _own: OwnedSemaphorePermit,
    _host: SemaphorePermit<'static>,
}

/// A list of grants that can't be enforced.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GrantError {
    /// One is no origin.
    #[error("use the grant `{grant}`, which {source}")]
    NoOrigin {
        /// The grant.
        grant: String,
        /// Why.
        source: ParseOriginError,
    },
    /// There are too many.
    #[error("take {count} granted origins: a task has at most {MAX_GRANTS}")]
    TooMany {
        /// How many there are.
        count: usize,
    },
}

impl EgressPolicy {
    /// The policy of the origins (`scheme://host[:port]`) that a deployment grants; none of them: nothing
    /// may be called. Certificates are checked against Mozilla's roots.
    ///
    /// # Errors
    /// Where one is no origin, or there are more than [`MAX_GRANTS`].
    pub fn from_grants(grants: &[String]) -> Result<Self, GrantError> {
        Self::build(grants, mozilla_tls())
    }

    /// The same, with certificates checked against `roots`.
    ///
    /// # Errors
    /// As [`EgressPolicy::from_grants`].
    pub fn with_roots(grants: &[String], roots: RootCertStore) -> Result<Self, GrantError> {
        Self::build(grants, tls_config(roots))
    }

    fn build(grants: &[String], tls: Arc<ClientConfig>) -> Result<Self, GrantError> {
        if grants.len() > MAX_GRANTS {
            return Err(GrantError::TooMany { count: grants.len() });
        }
        let read = |grant: &String| {
            grant.parse().map_err(|source| GrantError::NoOrigin { grant: grant.clone(), source })
        };
        Ok(Self {
            shared: Arc::new(Shared {
                origins: grants.iter().map(read).collect::<Result<_, _>>()?,
                connections: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
                lookups: Arc::new(Semaphore::new(MAX_LOOKUPS)),
                tls,
                traffic: Arc::default(),
            }),
        })
    }

    /// Whether requests to `origin` may be sent.
    #[must_use]
    pub fn permits(&self, origin: &Origin) -> bool {
        self.shared.origins.contains(origin)
    }

    /// Bytes sent and received so far.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        let counters = &self.shared.traffic;
        Traffic {
            sent_bytes: counters.sent_bytes.load(Ordering::Relaxed),
            received_bytes: counters.received_bytes.load(Ordering::Relaxed),
        }
    }

    /// Charges what crosses the network from now on to a partition as well. The first call counts.
    pub(crate) fn charge_to(&self, meter: &Arc<MeterCell>) {
        self.shared.traffic.meter.get_or_init(|| Arc::clone(meter));
    }

    pub(super) fn counters(&self) -> Arc<TrafficCounters> {
        Arc::clone(&self.shared.traffic)
    }

    pub(super) fn tls(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.shared.tls)
    }

    /// Room for one connection, as long as the permit lives.
    pub(super) fn admit(&self) -> Option<Admitted> {
        let own = Arc::clone(&self.shared.connections).try_acquire_owned().ok()?;
        let host = HOST_CONNECTIONS.try_acquire().ok()?;
        Some(Admitted { _own: own, _host: host })
    }

    /// Room for looking up names.
    pub(super) fn lookups(&self) -> Arc<Semaphore> {
        Arc::clone(&self.shared.lookups)
    }
}

/// Whether a granted host may be reached at `address`. A literal is the operator's word for exactly that
/// address, and `localhost` for this machine; any other name must lead into the public Internet.
pub(super) fn may_connect(host: &OriginHost, address: IpAddr) -> bool {
    match host {
        OriginHost::Address(granted) => *granted == address,
        OriginHost::Name(name) if name == "localhost" => address.is_loopback(),
        OriginHost::Name(_) => address::is_public(address),
    }
}

fn mozilla_tls() -> Arc<ClientConfig> {
    static CONFIG: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    let roots = || webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect();
    Arc::clone(CONFIG.get_or_init(|| tls_config(roots())))
}

fn tls_config(roots: RootCertStore) -> Arc<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring speaks TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(grants: &[&str]) -> Result<EgressPolicy, GrantError> {
        EgressPolicy::from_grants(&grants.iter().map(|&grant| grant.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn a_grant_covers_its_scheme_host_and_port_and_nothing_else() {
        let policy = policy(&["https://rates.example", "http://127.0.0.1:8080"]).expect("origins");
        let permits = |text: &str| policy.permits(&text.parse().expect("an origin"));
        assert!(permits("https://rates.example") && permits("https://RATES.example:443"));
        assert!(permits("http://127.0.0.1:8080"));
        for other in [
            "http://rates.example",
            "https://rates.example:444",
            "https://sub.rates.example",
            "https://rates.example.evil",
            "http://127.0.0.1",
            "http://127.0.0.2:8080",
            "http://localhost:8080",
            "http://[::ffff:127.0.0.1]:8080",
        ] {
            assert!(!permits(other), "{other}");
        }
    }

    #[test]
    fn grants_that_can_not_be_enforced_are_refused() {
        let error = policy(&["https://rates.example/v1"]).expect_err("a path can't be enforced");
        let reason =
            "use the grant `https://rates.example/v1`, which holds more than a scheme, a host and a port";
        assert_eq!(error.to_string(), reason);
        let many = vec!["https://a.example"; MAX_GRANTS + 1];
        assert_eq!(policy(&many).expect_err("too many"), GrantError::TooMany { count: MAX_GRANTS + 1 });
    }

    #[test]
    fn an_address_is_reached_only_by_the_word_that_names_it() {
        let may = |host: &str, address: &str| {
            may_connect(&host.parse().expect("a host"), address.parse().expect("an address"))
        };
        assert!(may("127.0.0.1", "127.0.0.1") && may("[::1]", "::1") && may("10.0.0.1", "10.0.0.1"));
        assert!(may("localhost", "127.0.0.1") && may("localhost", "::1"));
        assert!(may("rates.example", "1.1.1.1"));
        assert!(!may("localhost", "10.0.0.1") && !may("localhost", "169.254.169.254"));
        assert!(!may("rates.example", "127.0.0.1") && !may("rates.example", "::ffff:1.1.1.1"));
        assert!(!may("10.0.0.1", "10.0.0.2"));
    }
}
