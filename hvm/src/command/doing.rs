//! `hvm status --doing`: the requests that are not answered yet, also those whose guest hangs. Asked from the agents
//! themselves, because it changes faster than what they report.

use std::time::Duration;

use hvm_api::v1;
use serde_json::json;

use crate::client::Control;
use crate::failure::Failure;
use crate::table;

/// Prints them, of one deployment or of all where the name is empty.
pub(crate) async fn print(control: &mut Control, of: String, json: bool) -> Result<(), Failure> {
    let request = v1::GetPartitionsRequest { prefix: of };
    let mut doing = Vec::new();
    for (host, mut agent) in control.agents().await? {
        let answer = agent.get_partitions(request.clone()).await.map_err(|s| Failure::of_call(&host, &s))?;
        for partition in answer.into_inner().partitions {
            let replica = partition.report.map(|report| report.replica).unwrap_or_default();
            doing.extend(partition.doing.into_iter().map(|doing| (replica.clone(), host.clone(), doing)));
        }
    }
    doing.sort_by_key(|(.., doing)| std::cmp::Reverse(doing.millis));
    if json {
        let doing: Vec<_> =
            doing.iter().map(|(replica, host, doing)| to_json(replica, host, doing)).collect();
        return table::print_json(&doing);
    }
    let mut rows = table::table(&["partition", "host", "request", "what", "for", "now", "for", "trace"]);
    for (replica, host, doing) in &doing {
        rows.add_row([
            replica.clone(),
            host.clone(),
            doing.number.to_string(),
            doing.what.clone(),
            for_people(doing.millis),
            doing.detail.clone(),
            for_people(doing.phase_millis),
            doing.trace.clone(),
        ]);
    }
    table::print(&rows, "nothing is being done");
    Ok(())
}

fn for_people(millis: u64) -> String {
    humantime::format_duration(Duration::from_millis(millis)).to_string()
}

fn to_json(replica: &str, host: &str, doing: &v1::Doing) -> serde_json::Value {
    json!({
        "partition": replica,
        "host": host,
        "request": doing.number,
        "what": doing.what,
        "millis": doing.millis,
        "phase": doing.phase,
        "detail": doing.detail,
        "phase_millis": doing.phase_millis,
        "trace": (!doing.trace.is_empty()).then_some(&doing.trace),
    })
}
