//! Outgoing HTTP of a guest: whether the running request may call out at all. Where it may call to is decided
//! by [`crate::egress`].

use std::sync::Arc;

use http::{HeaderName, Request, Response};
use wasmtime_wasi_http::{DEFAULT_FORBIDDEN_HEADERS, Error, RequestOptions, WasiBody, WasiHttpHooks};

use crate::egress::{ConnectionDriver, EgressPolicy};

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
    pub(crate) egress: EgressPolicy,
    /// Whether commands may call out too.
    pub(crate) in_commands: bool,
}

/// The outgoing HTTP of one instance.
pub(crate) struct Outgoing {
    policy: Arc<OutgoingPolicy>,
    allowed_now: bool,
    bodies: u32,
}

type Sent = wasmtime_wasi_http::Result<(Response<WasiBody>, ConnectionDriver)>;

impl Outgoing {
    pub(crate) fn new(policy: Arc<OutgoingPolicy>) -> Self {
        Self { policy, allowed_now: false, bodies: 0 }
    }

    /// A request begins, which may be a command.
    pub(crate) fn begin(&mut self, is_command: bool) {
        self.allowed_now = !is_command || self.policy.in_commands;
        self.bodies = 0;
    }
}

impl WasiHttpHooks for Outgoing {
    /// As the stock one, which allocates at each call.
    fn is_forbidden_header(&mut self, name: &HeaderName) -> bool {
        DEFAULT_FORBIDDEN_HEADERS.contains(name)
    }

    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _processed: Box<dyn Future<Output = wasmtime_wasi_http::Result<()>> + Send>,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        if !self.allowed_now {
            return Box::new(async { Err(Error::HttpRequestDenied) });
        }
        let policy = Arc::clone(&self.policy);
        Box::new(async move { crate::egress::send(&policy.egress, request, options).await })
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
