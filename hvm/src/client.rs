//! Connections to the scheduler and to agents.

use std::time::Duration;

use hvm_api::limit::MESSAGE_MAX_BYTES;
use hvm_api::v1;
use hvm_api::v1::agent_client::AgentClient;
use hvm_api::v1::control_client::ControlClient;
use tonic::transport::{Channel, Endpoint};

use crate::cli::ApiArgs;
use crate::failure::Failure;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A scheduler, and its address for messages.
pub(crate) struct Control {
    pub(crate) client: ControlClient<Channel>,
    address: String,
}

async fn connect(address: &str) -> Result<Channel, Failure> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|_| Failure::new(format!("`{address}` is no address: write host:port")))?
        .connect_timeout(CONNECT_TIMEOUT);
    endpoint.connect().await.map_err(|_| {
        Failure::new(format!("nothing answers at {address}"))
            .hint("start `hvm dev` or `hvm scheduler`, or name its address with --api HOST:PORT or HVM_API")
    })
}

impl Control {
    /// Connects to the scheduler.
    pub(crate) async fn connect(api: &ApiArgs) -> Result<Self, Failure> {
        let client = ControlClient::new(connect(&api.api).await?)
            .max_decoding_message_size(MESSAGE_MAX_BYTES)
            .max_encoding_message_size(MESSAGE_MAX_BYTES);
        Ok(Self { client, address: api.api.clone() })
    }

    /// What a failed call to it means.
    pub(crate) fn failure(&self, status: &tonic::Status) -> Failure {
        Failure::of_call(&self.address, status)
    }

    /// Status of one deployment, or of all where the name is empty, and of the hosts.
    pub(crate) async fn status(&mut self, deployment: &str) -> Result<v1::GetStatusResponse, Failure> {
        let request = v1::GetStatusRequest { deployment: deployment.to_owned() };
        match self.client.get_status(request).await {
            Ok(response) => Ok(response.into_inner()),
            Err(status) => Err(self.failure(&status)),
        }
    }

    /// The agents of all hosts that are alive, each with its host's name.
    pub(crate) async fn agents(&mut self) -> Result<Vec<(String, AgentClient<Channel>)>, Failure> {
        let status = self.status("").await?;
        let mut agents = Vec::new();
        for host in status.hosts {
            let Some(spec) = host.spec else { continue };
            match connect(&spec.api).await {
                Ok(channel) => agents
                    .push((spec.id, AgentClient::new(channel).max_decoding_message_size(MESSAGE_MAX_BYTES))),
                Err(_) => eprintln!("warning: host {} does not answer at {}", spec.id, spec.api),
            }
        }
        if agents.is_empty() {
            return Err(Failure::new("no host answers").hint("`hvm hosts` shows the hosts that joined"));
        }
        Ok(agents)
    }
}
