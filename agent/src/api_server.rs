//! The agent's API on a listener of its own.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use hvm_api::limit::MESSAGE_MAX_BYTES;
use hvm_api::v1::agent_server::AgentServer;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic::transport::server::TcpIncoming;

use crate::config::ApiListen;
use crate::failure_text::with_causes;
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
        let serving = tonic::transport::Server::builder().add_service(server(service));
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

/// The API with the sizes that both ends keep to.
pub(crate) fn server(service: AgentService) -> AgentServer<AgentService> {
    AgentServer::new(service)
        .max_decoding_message_size(MESSAGE_MAX_BYTES)
        .max_encoding_message_size(MESSAGE_MAX_BYTES)
}
