//! The server: the services on one listener.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hvm_api::limit::MESSAGE_MAX_BYTES;
use hvm_api::v1::control_server::ControlServer;
use hvm_api::v1::host_control_server::HostControlServer;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::server::TcpIncoming;

use super::control::ControlService;
use super::host_control::HostControlService;
use crate::core::Core;

/// Most calls at a time on one connection.
const MAX_STREAMS_PER_CONNECTION: u32 = 256;
/// A connection whose other end is gone is noticed after this and [`KEEPALIVE_TIMEOUT`].
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long calls may go on after the end was announced.
const GRACE: Duration = Duration::from_secs(3);

/// Why the server could not begin.
#[derive(Debug, thiserror::Error)]
#[error("read the address of the listener")]
pub(crate) struct ServeError {
    #[source]
    source: std::io::Error,
}

/// Both services.
pub(crate) fn routes(core: &Arc<Core>) -> Routes {
    let control = ControlServer::new(ControlService { core: Arc::clone(core) })
        .max_decoding_message_size(MESSAGE_MAX_BYTES)
        .max_encoding_message_size(MESSAGE_MAX_BYTES);
    let host_control = HostControlServer::new(HostControlService { core: Arc::clone(core) })
        .max_decoding_message_size(MESSAGE_MAX_BYTES)
        .max_encoding_message_size(MESSAGE_MAX_BYTES);
    Routes::new(control).add_service(host_control)
}

/// A running server.
#[derive(Debug)]
pub(crate) struct Server {
    address: SocketAddr,
    serving: JoinHandle<()>,
}

impl Server {
    pub(crate) fn start(
        routes: Routes,
        stop: CancellationToken,
        listener: TcpListener,
    ) -> Result<Self, ServeError> {
        let address = listener.local_addr().map_err(|source| ServeError { source })?;
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        let router = tonic::transport::Server::builder()
            // For what others add, such as metrics.
            .accept_http1(true)
            .max_concurrent_streams(MAX_STREAMS_PER_CONNECTION)
            .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
            .add_routes(routes);
        let serving = tokio::spawn(async move {
            let ended = async move { stop.cancelled().await };
            if let Err(error) = router.serve_with_incoming_shutdown(incoming, ended).await {
                tracing::error!(error = &error as &dyn std::error::Error, "serving the API ended");
            }
        });
        Ok(Self { address, serving })
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits for the calls to end, once the scheduler was told to stop; then cuts them off.
    pub(crate) async fn ended(mut self) {
        if tokio::time::timeout(GRACE, &mut self.serving).await.is_err() {
            self.serving.abort();
        }
    }
}
