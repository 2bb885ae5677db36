//! The agent's API on a listener of its own.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hvm_api::limit::MESSAGE_MAX_BYTES;
use hvm_api::v1::agent_server::AgentServer;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic::service::Routes;
use tonic::transport::server::TcpIncoming;

use crate::config::ApiListen;
use crate::failure_text::with_causes;
use crate::metrics::{self, Metrics};
use crate::service::AgentService;
use crate::start_error::StartError;

/// How long calls may take when the agent stops.
const API_GRACE: Duration = Duration::from_millis(500);

/// A listener, before there is anything to serve.
pub(crate) struct ApiListener {
    listener: TcpListener,
    pub(crate) address: SocketAddr,
}

/// A running server.
pub(crate) struct ApiServer {
    stop: watch::Sender<bool>,
    join: JoinHandle<()>,
}

impl ApiListener {
    pub(crate) async fn listen(api: &ApiListen) -> Result<Option<Self>, StartError> {
        let ApiListen::Own { address, .. } = api else { return Ok(None) };
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::AddrInUse => StartError::ApiInUse { address: *address },
            _ => StartError::Api { address: *address, source },
        };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Some(Self { listener, address }))
    }

    pub(crate) fn serve(self, service: AgentService) -> ApiServer {
        let (stop, mut stopped) = watch::channel(false);
        let incoming = TcpIncoming::from(self.listener).with_nodelay(Some(true));
        // What reads metrics speaks HTTP/1.1.
        let serving = tonic::transport::Server::builder()
            .accept_http1(true)
            .add_routes(extend(Routes::default(), service));
        let join = tokio::spawn(async move {
            let stop = async move {
                let _ = stopped.wait_for(|stopped| *stopped).await; // an error means the same
            };
            if let Err(error) = serving.serve_with_incoming_shutdown(incoming, stop).await {
                let reason = with_causes(&error);
                tracing::error!(reason, "the agent's API ended");
            }
        });
        ApiServer { stop, join }
    }
}

impl ApiServer {
    /// Ends it. Someone who follows a log would keep it for ever, so that it does not wait long.
    pub(crate) async fn stop(mut self) {
        self.stop.send_replace(true);
        if tokio::time::timeout(API_GRACE, &mut self.join).await.is_err() {
            self.join.abort();
        }
    }
}

/// Adds the API, with the sizes that both ends keep to, and the metrics.
pub(crate) fn extend(routes: Routes, service: AgentService) -> Routes {
    let metrics = Metrics { hvm: service.hvm.clone(), usage: Arc::clone(&service.usage) };
    let server = AgentServer::new(service)
        .max_decoding_message_size(MESSAGE_MAX_BYTES)
        .max_encoding_message_size(MESSAGE_MAX_BYTES);
    metrics::routes(routes.add_service(server), metrics)
}
