//! Epoch and sequence of each partition, as the host says them: they never go back.

use std::collections::BTreeMap;

use hvm_api::v1::GetPartitionsRequest;
use hvm_api::v1::agent_client::AgentClient;

/// The newest that were seen.
#[derive(Debug, Default)]
pub(crate) struct Positions(BTreeMap<String, (u64, u64)>);

impl Positions {
    /// Asks for them and compares them with those before, and with how many transfers each partition holds.
    pub(crate) async fn check(
        &mut self,
        api: &str,
        transfers: &BTreeMap<String, i128>,
    ) -> Result<(), String> {
        let mut agent =
            AgentClient::connect(format!("http://{api}")).await.map_err(|error| error.to_string())?;
        let request = GetPartitionsRequest { prefix: String::new() };
        let answer = agent.get_partitions(request).await.map_err(|status| status.to_string())?;
        for detail in answer.into_inner().partitions {
            let Some(report) = detail.report else { continue };
            // A partition that is not open yet has no position.
            let now = (report.epoch, detail.sequence);
            let Some(count) = transfers.get(&report.replica) else { continue };
            let before = self.0.insert(report.replica.clone(), now).unwrap_or_default();
            if now.0 < before.0 || now.1 < before.1 {
                return Err(format!(
                    "{} was at (epoch, sequence) {before:?} and is at {now:?}",
                    report.replica
                ));
            }
            if i128::from(now.1) < *count {
                return Err(format!("{} holds {count} transfers in {} commits", report.replica, now.1));
            }
        }
        Ok(())
    }
}
