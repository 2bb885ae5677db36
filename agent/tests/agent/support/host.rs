//! An agent that a test runs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use hvm_agent::{Agent, AgentConfig, AgentHandle};
use hvm_types::{ByteSize, HostId};

use super::client::Client;

/// How long anything may take before a test gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A host: its directory, and its agent while it runs.
pub(crate) struct Host {
    pub(crate) id: HostId,
    pub(crate) dir: tempfile::TempDir,
    config: AgentConfig,
    agent: Option<AgentHandle>,
}

impl Host {
    /// A host that is not started.
    pub(crate) fn new(id: &str, scheduler: &str, trust: Option<PathBuf>) -> Self {
        let id: HostId = id.parse().expect("a host id");
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut config = AgentConfig::new(id.clone(), dir.path().join("data"), scheduler);
        config.trust = trust;
        config.memory = ByteSize::mib(512);
        Self { id, dir, config, agent: None }
    }

    pub(crate) async fn started(id: &str, scheduler: &str, trust: Option<PathBuf>) -> Self {
        let mut host = Self::new(id, scheduler, trust);
        host.start().await;
        host
    }

    pub(crate) async fn start(&mut self) {
        self.agent = Some(Agent::start(self.config.clone()).await.expect("the agent starts"));
    }

    pub(crate) fn agent(&self) -> &AgentHandle {
        self.agent.as_ref().expect("it runs")
    }

    pub(crate) fn config(&self) -> &AgentConfig {
        &self.config
    }

    /// What it is started with the next time.
    pub(crate) const fn config_mut(&mut self) -> &mut AgentConfig {
        &mut self.config
    }

    pub(crate) fn data(&self) -> &Path {
        &self.config.data_dir
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(self.agent().ingress())
    }

    /// The host and its ingress, as documents name it.
    pub(crate) fn entry(&self) -> (HostId, String) {
        (self.id.clone(), self.agent().host().ingress.clone())
    }

    pub(crate) async fn stop(&mut self) {
        if let Some(agent) = self.agent.take() {
            agent.shutdown().await;
        }
    }
}

/// Asks again until it is so.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, is_met: impl Fn() -> F) {
    let asking = async {
        while !is_met().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, asking).await.is_ok(), "it never came to this: {what}");
}
