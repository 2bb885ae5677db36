//! `hvm state ls`.

use super::hosts::{Hosts, state_json};
use crate::cli::ListArgs;
use crate::failure::Failure;
use crate::table;

/// Runs `hvm state ls`.
pub(super) async fn ls(of: String, list: &ListArgs) -> Result<(), Failure> {
    let hosts = Hosts::ask(&list.api, &of).await?;
    if list.json {
        let rows = hosts.stored.iter().map(|(host, state)| state_json(host, state));
        return table::print_json(&rows.collect::<Vec<_>>());
    }
    let mut rows = table::table(&["partition", "host", "epoch", "sequence", "stored", "answers", "state"]);
    for (host, state) in &hosts.stored {
        rows.add_row([
            state.replica.clone(),
            host.clone(),
            state.epoch.to_string(),
            state.sequence.to_string(),
            table::bytes(state.stored_bytes),
            state.answers.to_string(),
            if state.running.is_empty() { "-".to_owned() } else { state.running.clone() },
        ]);
    }
    table::print(&rows, "no host has state: `hvm deploy FILE` declares partitions, which keep some");
    Ok(())
}
