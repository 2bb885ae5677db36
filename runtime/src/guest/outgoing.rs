//! Outgoing HTTP of a guest: whether the running request may call out at all. Where it may call to is decided
//! by [`crate::egress`].

use std::sync::Arc;

use http::{Request, Response};
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};

use crate::egress::{ConnectionDriver, EgressPolicy};

/// Chunks of a response body that wait for its reader, and their size: a body up to 1 MiB never keeps its
/// guest waiting.
const BODY_CHUNKS: usize = 15;
/// See [`BODY_CHUNKS`].
const BODY_CHUNK_BYTES: usize = 64 << 10;

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
}

type Sent = wasmtime_wasi_http::Result<(Response<WasiBody>, ConnectionDriver)>;

impl Outgoing {
    pub(crate) fn new(policy: Arc<OutgoingPolicy>) -> Self {
        Self { policy, allowed_now: false }
    }

    /// A request begins, which may be a command.
    pub(crate) fn begin(&mut self, is_command: bool) {
        self.allowed_now = !is_command || self.policy.in_commands;
    }
}

impl WasiHttpHooks for Outgoing {
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

    fn p2_outgoing_body_buffer_chunks(&mut self) -> usize {
        BODY_CHUNKS
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        BODY_CHUNK_BYTES
    }
}
