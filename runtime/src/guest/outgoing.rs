//! Outgoing HTTP of a guest: whether the running request may call out at all. Where it may call to is decided
//! by [`crate::egress`].

use std::sync::Arc;

use http::{HeaderName, Request, Response, Uri};
use hvm_types::ReplicaId;
use wasmtime_wasi_http::{DEFAULT_FORBIDDEN_HEADERS, Error, RequestOptions, WasiBody, WasiHttpHooks};

use super::on_behalf::OnBehalf;
use crate::egress::{ConnectionDriver, EgressPolicy};
use crate::progress::Progress;

/// Chunks of a response body that wait for its reader, and their size: a body up to 1 MiB never keeps its
/// guest waiting.
const BODY_CHUNKS: usize = 16;
/// See [`BODY_CHUNKS`].
const BODY_CHUNK_BYTES: usize = 64 << 10;
/// Bodies of one request with that much room. A guest that makes more of them (calls out, or keeps bodies that it
/// never sends) gets less for each: what is in them is in the host's memory.
const ROOMY_BODIES: u32 = 16;
/// Chunks of the bodies after those, beside the one in the reader's hand, and their size.
const NARROW_BODY_CHUNKS: usize = 1;
/// See [`NARROW_BODY_CHUNKS`].
const NARROW_BODY_CHUNK_BYTES: usize = 16 << 10;

/// What a partition's guests may call.
pub(crate) struct OutgoingPolicy {
    /// Who pays for what calls take.
    pub(crate) id: Arc<ReplicaId>,
    pub(crate) egress: EgressPolicy,
    /// Whether commands may call out too.
    pub(crate) in_commands: bool,
}

/// The outgoing HTTP of one instance.
pub(crate) struct Outgoing {
    policy: Arc<OutgoingPolicy>,
    allowed_now: bool,
    bodies: u32,
    /// The request that runs, once it is [shown](Self::shows).
    progress: Option<Arc<Progress>>,
}

/// Shows a call as long as it lives.
struct Call {
    progress: Arc<Progress>,
    origin: String,
}

impl Call {
    fn begin(progress: Arc<Progress>, origin: String) -> Self {
        progress.call_begins(&origin);
        Self { progress, origin }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.progress.call_ends(&self.origin);
    }
}

type Sent = wasmtime_wasi_http::Result<(Response<WasiBody>, ConnectionDriver)>;

impl Outgoing {
    pub(crate) fn new(policy: Arc<OutgoingPolicy>) -> Self {
        Self { policy, allowed_now: false, bodies: 0, progress: None }
    }

    /// A request begins, which may be a command.
    pub(crate) fn begin(&mut self, is_command: bool) {
        self.allowed_now = !is_command || self.policy.in_commands;
        self.bodies = 0;
    }

    /// The request has ended.
    pub(crate) fn end(&mut self) {
        self.progress = None;
    }

    /// What it calls is shown as of this request.
    pub(super) fn shows(&mut self, progress: Option<&Arc<Progress>>) {
        if self.progress.is_none() {
            self.progress = progress.cloned();
        }
    }

    /// The request that runs.
    pub(crate) fn progress(&self) -> Option<&Progress> {
        self.progress.as_deref()
    }
}

impl WasiHttpHooks for Outgoing {
    /// As the stock one, which allocates at each call.
    fn is_forbidden_header(&mut self, name: &HeaderName) -> bool {
        DEFAULT_FORBIDDEN_HEADERS.contains(name)
    }

    fn send_request(
        &mut self,
        mut request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _processed: Box<dyn Future<Output = wasmtime_wasi_http::Result<()>> + Send>,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        if !self.allowed_now {
            return Box::new(async { Err(Error::HttpRequestDenied) });
        }
        let policy = Arc::clone(&self.policy);
        let call = self.progress.clone().map(|progress| {
            if let Some(trace) = progress.trace() {
                trace.pass_on(request.headers_mut());
            }
            Call::begin(progress, origin_of(request.uri()))
        });
        let id = Arc::clone(&policy.id);
        let payer = Arc::clone(&id);
        let sending = async move {
            let _call = call;
            let (response, driver) = crate::egress::send(&policy.egress, request, options).await?;
            let driver: ConnectionDriver = Box::new(OnBehalf::of(&payer, Box::into_pin(driver)));
            Ok((response, driver))
        };
        Box::new(OnBehalf::of(&id, Box::pin(sending)))
    }

    /// Asked first of the two, once for each body.
    fn p2_outgoing_body_buffer_chunks(&mut self) -> usize {
        self.bodies = self.bodies.saturating_add(1);
        if self.bodies <= ROOMY_BODIES { BODY_CHUNKS } else { NARROW_BODY_CHUNKS }
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        if self.bodies <= ROOMY_BODIES { BODY_CHUNK_BYTES } else { NARROW_BODY_CHUNK_BYTES }
    }
}

/// Scheme, host and port; without what else may stand in an authority.
fn origin_of(uri: &Uri) -> String {
    let (scheme, host) = (uri.scheme_str().unwrap_or("http"), uri.host().unwrap_or_default());
    match uri.port_u16() {
        Some(port) => format!("{scheme}://{host}:{port}"),
        None => format!("{scheme}://{host}"),
    }
}
