//! `hvm usage`: what each partition used, and what the hosts used beside them.

use std::time::Duration;

use hvm_api::v1;
use hvm_types::Meter;
use serde_json::json;

use crate::cli::UsageArgs;
use crate::client::Control;
use crate::failure::Failure;
use crate::table;

/// Runs `hvm usage`.
pub(crate) async fn usage(args: UsageArgs) -> Result<(), Failure> {
    let mut control = Control::connect(&args.list.api).await?;
    let of = args.of.unwrap_or_default();
    let request = v1::GetUsageRequest { prefix: of.clone() };
    let mut hosts = Vec::new();
    for (host, mut agent) in control.agents().await? {
        let usage = agent.get_usage(request.clone()).await.map_err(|s| Failure::of_call(&host, &s))?;
        hosts.push(usage.into_inner());
    }
    if args.list.json {
        let hosts = hosts.into_iter().map(host_json).collect::<Result<Vec<_>, _>>()?;
        return table::print_json(&hosts);
    }
    let mut rows = table::table(&[
        "partition",
        "host",
        "requests",
        "failed",
        "refused",
        "cpu",
        "in guest",
        "memory·time",
        "state read",
        "state written",
        "stored",
        "in",
        "out",
    ]);
    if !of.is_empty() && hosts.iter().all(|host| host.partitions.is_empty()) {
        eprintln!("nothing of `{of}` was used: `hvm status` shows the deployments and their groups");
    }
    let mut total = Meter::default();
    let mut stored_total = 0;
    for host in &hosts {
        for partition in &host.partitions {
            let meter: Meter = partition.meter.unwrap_or_default().into();
            total += &meter;
            stored_total += partition.stored_bytes;
            rows.add_row(row(&partition.replica, &host.host, &meter, partition.stored_bytes));
        }
        let rest: Meter = host.rest.unwrap_or_default().into();
        total += &rest;
        rows.add_row(row("(host)", &host.host, &rest, 0));
    }
    rows.add_row(row("total", "", &total, stored_total));
    table::print(&rows, "nothing was used");
    Ok(())
}

fn row(name: &str, host: &str, meter: &Meter, stored: u64) -> Vec<String> {
    let seconds = |time: Duration| format!("{:.3} s", time.as_secs_f64());
    vec![
        name.to_owned(),
        host.to_owned(),
        meter.requests().to_string(),
        meter.failed.to_string(),
        meter.refused.to_string(),
        seconds(meter.cpu),
        seconds(meter.wall),
        format!("{}·s", table::bytes(meter.memory_byte_seconds)),
        table::bytes(meter.state_read_bytes),
        table::bytes(meter.state_written_bytes),
        table::bytes(stored),
        table::bytes(meter.received_bytes),
        table::bytes(meter.sent_bytes),
    ]
}

fn host_json(usage: v1::GetUsageResponse) -> Result<serde_json::Value, Failure> {
    let meter = |wire: Option<v1::Meter>| serde_json::to_value(Meter::from(wire.unwrap_or_default()));
    let partitions = usage
        .partitions
        .into_iter()
        .map(|partition| {
            Ok(json!({
                "partition": partition.replica, "meter": meter(partition.meter)?,
                "stored_bytes": partition.stored_bytes,
            }))
        })
        .collect::<Result<Vec<_>, Failure>>()?;
    Ok(json!({
        "host": usage.host, "since_unix_millis": usage.since_unix_millis, "partitions": partitions,
        "rest": meter(usage.rest)?,
    }))
}
