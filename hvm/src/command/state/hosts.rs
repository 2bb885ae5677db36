//! Which host has which state, and which of them owns it.

use std::collections::BTreeMap;

use hvm_api::v1;
use hvm_api::v1::agent_client::AgentClient;
use serde_json::{Value, json};
use tonic::transport::Channel;

use crate::cli::ApiArgs;
use crate::client::Control;
use crate::failure::Failure;

/// All agents, and what state their hosts have.
pub(super) struct Hosts {
    agents: BTreeMap<String, AgentClient<Channel>>,
    /// By partition and host.
    pub(super) stored: Vec<(String, v1::StoredState)>,
}

impl Hosts {
    /// Asks all hosts for the state of what `of` names.
    pub(super) async fn ask(api: &ApiArgs, of: &str) -> Result<Self, Failure> {
        let mut agents = BTreeMap::new();
        let mut stored = Vec::new();
        for (host, mut agent) in Control::connect(api).await?.agents().await? {
            let request = v1::ListStateRequest { prefix: of.to_owned() };
            let listed =
                agent.list_state(request).await.map_err(|status| Failure::of_call(&host, &status))?;
            stored.extend(listed.into_inner().partitions.into_iter().map(|state| (host.clone(), state)));
            agents.insert(host, agent);
        }
        let name = |state: &v1::StoredState| {
            let (group, index) = state.replica.rsplit_once('/').unwrap_or_default();
            (group.to_owned(), index.parse::<u32>().unwrap_or_default())
        };
        stored.sort_by_cached_key(|(host, state)| {
            (name(state), state.owner.clone(), state.owner != *host, host.clone())
        });
        // All hosts that reach a store list what is in it: the owner's word counts, where that host is there.
        stored.dedup_by(|(_, next), (_, first)| {
            next.replica == first.replica && next.owner == first.owner && !first.owner.is_empty()
        });
        Ok(Self { agents, stored })
    }

    /// The one host of each partition that owns it: where it runs, else where its epoch is the newest. Others may have
    /// what they had before it moved.
    pub(super) fn owners(&self) -> Vec<(String, v1::StoredState)> {
        let mut owners: Vec<(String, v1::StoredState)> = Vec::new();
        let rank = |state: &v1::StoredState| (!state.running.is_empty(), state.epoch);
        for (host, state) in &self.stored {
            match owners.last_mut() {
                Some(last) if last.1.replica == state.replica => {
                    if rank(state) > rank(&last.1) {
                        *last = (host.clone(), state.clone());
                    }
                }
                _ => owners.push((host.clone(), state.clone())),
            }
        }
        owners
    }

    /// The owner of one partition.
    pub(super) fn owner(&self, partition: &str) -> Result<(String, v1::StoredState), Failure> {
        let owner = self.owners().into_iter().find(|(_, state)| state.replica == partition);
        owner.ok_or_else(|| {
            Failure::new(format!("no host has state of `{partition}`"))
                .hint("`hvm state ls` shows what there is; a partition has state once it was deployed")
        })
    }

    /// The agent of a host.
    pub(super) fn agent(&self, host: &str) -> Result<AgentClient<Channel>, Failure> {
        self.agents.get(host).cloned().ok_or_else(|| Failure::new(format!("host {host} is gone")))
    }
}

/// A partition's numbers as JSON.
pub(super) fn state_json(host: &str, state: &v1::StoredState) -> Value {
    json!({
        "partition": state.replica,
        "host": host,
        "epoch": state.epoch,
        "sequence": state.sequence,
        "stored_bytes": state.stored_bytes,
        "answers": state.answers,
        "state": if state.running.is_empty() { Value::Null } else { json!(state.running) },
    })
}

/// Refuses what is not deployment/group/number before anybody is asked.
pub(super) fn one_partition(text: &str) -> Result<hvm_types::ReplicaId, Failure> {
    Ok(text.parse::<hvm_types::ReplicaId>()?)
}
