//! Passing a request on to the host that owns its partition, over kept connections.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST, HeaderValue, TE, TRANSFER_ENCODING};
use http::uri::PathAndQuery;
use http::{Request, Response, Uri, Version};
use http_body::Body as _;
use http_body_util::{Either, Empty};
use hvm_runtime::RequestError;
use hvm_types::HostId;
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{self as client, Client};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::answer::IngressRefusal;
use super::body::ClientBody;
use super::header::{HOP, PROBE, strip_hop_by_hop};
use super::routing::OtherHost;

/// How long another host may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long an unused connection is kept: shorter than the other ingress keeps it, so that no request is sent
/// on one that is being closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(15);

/// Unused connections kept to each host, by each worker; fewer where it may pass on few requests.
const MAX_IDLE_PER_HOST: usize = 64;
/// See [`MAX_IDLE_PER_HOST`].
const IDLE_SHARE: usize = 8;

/// How soon a host that vanished is noticed on a connection that waits for its answer.
const KEEPALIVE_PERIOD: Duration = Duration::from_secs(5);

/// Unanswered probes until such a connection is given up.
const KEEPALIVE_PROBES: u32 = 3;

/// An owner that has not answered for so long is asked whether it still runs: its process may be stopped while the
/// kernel keeps its connections. How long a request may take is the owner's to say.
const PROBE_PERIOD: Duration = Duration::from_secs(3);

/// How long it may take to say so.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

/// Connections from one worker to the other hosts.
#[derive(Debug)]
pub(crate) struct Forward {
    client: Client<HttpConnector, Either<ClientBody, Empty<Bytes>>>,
    /// Room for requests that are passed on: each takes a connection. A client with one connection may send many.
    places: Arc<Semaphore>,
    /// The name of this host, for the header that forbids forwarding again.
    from: HeaderValue,
}

impl Forward {
    /// Passes on at most so many requests at a time.
    pub(crate) fn new(here: &HostId, places: usize) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        connector.set_nodelay(true);
        connector.set_keepalive(Some(KEEPALIVE_PERIOD));
        connector.set_keepalive_interval(Some(KEEPALIVE_PERIOD));
        connector.set_keepalive_retries(Some(KEEPALIVE_PROBES));
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host((places / IDLE_SHARE).clamp(1, MAX_IDLE_PER_HOST))
            .build(connector);
        let from = HeaderValue::from_str(here.as_str()).expect("a host id is a DNS label");
        Self { client, places: Arc::new(Semaphore::new(places)), from }
    }

    /// Sends the request to the owner and brings the answer. `group` names what was asked for, in errors.
    pub(crate) async fn send(
        &self,
        owner: &OtherHost,
        group: &str,
        mut request: Request<ClientBody>,
    ) -> Result<Response<Forwarded>, IngressRefusal> {
        let place = Arc::clone(&self.places).try_acquire_owned();
        let place = place.map_err(|_| IngressRefusal::TooManyForwarded)?;
        let unreachable = || IngressRefusal::OwnerUnreachable {
            host: owner.id.to_string(),
            address: owner.ingress.clone(),
            group: group.to_owned(),
        };
        let asked = request.uri().authority().cloned();
        let has_no_body = request.body().is_end_stream();
        *request.uri_mut() = owner_uri(owner, request.uri()).ok_or_else(unreachable)?;
        *request.version_mut() = Version::HTTP_11;
        let headers = request.headers_mut();
        strip_hop_by_hop(headers);
        // The owner routes by the host that the client asked for, not by its own address.
        if let Some(value) = asked.and_then(|asked| HeaderValue::from_str(asked.as_str()).ok()) {
            headers.insert(HOST, value);
        }
        headers.insert(HOP, self.from.clone());
        // Trailers are taken here, whatever the client takes: the owner sends none unasked.
        headers.insert(TE, HeaderValue::from_static("trailers"));
        if !has_no_body && !headers.contains_key(CONTENT_LENGTH) {
            // hyper takes it for granted that a GET has no body, and would drop this one.
            headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        let lost = || IngressRefusal::OwnerLost { host: owner.id.to_string(), group: group.to_owned() };
        let failed = |error: client::Error| {
            tracing::debug!(owner = %owner.id, ingress = owner.ingress, %error, "forwarding failed");
            match clients_fault(&error) {
                _ if error.is_connect() => unreachable(),
                Some(reason) => RequestError::BodyBroken { reason }.into(),
                None => lost(),
            }
        };
        let mut response = tokio::select! {
            biased;
            answered = self.client.request(request.map(Either::Left)) => answered.map_err(failed)?,
            () = self.until_silent(owner) => return Err(lost()),
        };
        strip_hop_by_hop(response.headers_mut());
        Ok(response.map(|body| Forwarded { body, _place: place }))
    }

    /// Resolves when the owner does not say any more that it runs.
    async fn until_silent(&self, owner: &OtherHost) {
        loop {
            tokio::time::sleep(PROBE_PERIOD).await;
            let Some(uri) = owner_uri(owner, &Uri::default()) else { return };
            let mut probe = Request::new(Either::Right(Empty::new()));
            *probe.uri_mut() = uri;
            probe.headers_mut().insert(HOP, PROBE);
            let asked = tokio::time::timeout(PROBE_TIMEOUT, self.client.request(probe)).await;
            if !matches!(asked, Ok(Ok(_))) {
                tracing::debug!(owner = %owner.id, ingress = owner.ingress, "an owner fell silent");
                return;
            }
        }
    }
}

/// What was wrong with the request's body, where that is why it could not be passed on.
fn clients_fault(error: &client::Error) -> Option<String> {
    let error = error.source()?.downcast_ref::<hyper::Error>()?;
    error.is_user().then(|| error.source().map_or_else(|| error.to_string(), ToString::to_string))
}

/// The body of an answer from another host, with the place of its request.
#[derive(Debug)]
pub(crate) struct Forwarded {
    pub(crate) body: Incoming,
    _place: OwnedSemaphorePermit,
}

fn owner_uri(owner: &OtherHost, asked: &Uri) -> Option<Uri> {
    let path = asked.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    Uri::builder().scheme("http").authority(owner.ingress.as_str()).path_and_query(path).build().ok()
}
