//! `hvm usage`: what each partition used, and what the hosts used beside them.

use std::time::Duration;

use hvm_api::v1;
use hvm_types::{Meter, RequestOutcome};
use serde_json::{Value, json};

use crate::cli::UsageArgs;
use crate::client::Control;
use crate::command::existing;
use crate::failure::Failure;
use crate::table;

const COLUMNS: [&str; 15] = [
    "partition",
    "host",
    "requests",
    "failed",
    "refused",
    "cpu",
    "fuel",
    "in guest",
    "throttled",
    "memory·time",
    "state read",
    "state written",
    "stored",
    "in",
    "out",
];

/// Runs `hvm usage`.
pub(crate) async fn usage(args: UsageArgs) -> Result<(), Failure> {
    let mut control = Control::connect(&args.list.api).await?;
    let of = args.of.unwrap_or_default();
    let last = args.last.map_or(Duration::ZERO, |last| last.0);
    let last_millis = u64::try_from(last.as_millis()).unwrap_or(u64::MAX);
    let request = v1::GetUsageRequest { prefix: of.clone(), last_millis, windows: args.windows };
    let mut hosts = Vec::new();
    for (host, mut agent) in control.agents().await? {
        let usage = agent.get_usage(request.clone()).await.map_err(|s| Failure::of_call(&host, &s))?;
        hosts.push(usage.into_inner());
    }
    let is_used = |host: &v1::GetUsageResponse| {
        !host.partitions.is_empty() || host.windows.iter().any(|window| !window.partitions.is_empty())
    };
    if !of.is_empty() && !hosts.iter().any(is_used) {
        // What was stopped is still in the books of its hosts.
        existing::check(&mut control, &of).await?;
        if !args.list.json {
            eprintln!("nothing of `{of}` was used");
        }
    }
    if args.list.json {
        return table::print_json(&hosts.into_iter().map(host_json).collect::<Vec<_>>());
    }
    if args.windows {
        print_windows(&hosts);
    } else {
        print_sums(&hosts);
    }
    Ok(())
}

fn print_sums(hosts: &[v1::GetUsageResponse]) {
    let mut rows = table::table(&COLUMNS);
    let mut total = Meter::default();
    let mut stored_total = 0;
    for host in hosts {
        for partition in &host.partitions {
            let meter = meter_of(partition);
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
}

fn print_windows(hosts: &[v1::GetUsageResponse]) {
    let mut columns = vec!["window"];
    columns.extend(COLUMNS.iter().filter(|column| **column != "stored"));
    let mut rows = table::table(&columns);
    let stored = COLUMNS.iter().position(|column| *column == "stored");
    for host in hosts {
        for window in &host.windows {
            let mut add = |name: &str, meter: &Meter| {
                let mut row = row(name, &host.host, meter, 0);
                stored.map(|column| row.remove(column));
                row.insert(0, format!("{}..{}", time(window.from_unix_millis), time(window.to_unix_millis)));
                rows.add_row(row);
            };
            for partition in &window.partitions {
                add(&partition.replica, &meter_of(partition));
            }
            let cpu = Duration::from_nanos(window.host_cpu_nanos);
            add("(host)", &Meter { cpu, ..Meter::default() });
        }
    }
    table::print(&rows, "no window has ended yet");
}

fn meter_of(usage: &v1::PartitionUsage) -> Meter {
    usage.meter.unwrap_or_default().into()
}

/// A time of day in UTC.
fn time(unix_millis: u64) -> String {
    let seconds = unix_millis / 1_000 % 86_400;
    format!("{:02}:{:02}:{:02}Z", seconds / 3_600, seconds / 60 % 60, seconds % 60)
}

fn row(name: &str, host: &str, meter: &Meter, stored: u64) -> Vec<String> {
    let seconds = |time: Duration| format!("{:.3} s", time.as_secs_f64());
    vec![
        name.to_owned(),
        host.to_owned(),
        meter.requests().to_string(),
        meter.failures().to_string(),
        meter.refused.to_string(),
        seconds(meter.cpu),
        meter.fuel.to_string(),
        seconds(meter.wall),
        seconds(meter.throttled),
        format!("{}·s", table::bytes(meter.memory_byte_seconds)),
        table::bytes(meter.state_read_bytes),
        table::bytes(meter.state_written_bytes),
        table::bytes(stored),
        table::bytes(meter.received_bytes),
        table::bytes(meter.sent_bytes),
    ]
}

fn host_json(usage: v1::GetUsageResponse) -> Value {
    let rest: Meter = usage.rest.unwrap_or_default().into();
    json!({
        "host": usage.host,
        "since_unix_millis": usage.since_unix_millis,
        "until_unix_millis": usage.until_unix_millis,
        "durable_unix_millis": usage.durable_unix_millis,
        "process_cpu_seconds": seconds(Duration::from_nanos(usage.process_cpu_nanos)),
        "partitions": usage.partitions.iter().map(partition_json).collect::<Vec<_>>(),
        "rest": meter_json(&rest),
        "windows": usage.windows.iter().map(window_json).collect::<Vec<_>>(),
    })
}

fn window_json(window: &v1::UsageWindow) -> Value {
    let rest = Meter { cpu: Duration::from_nanos(window.host_cpu_nanos), ..Meter::default() };
    json!({
        "from_unix_millis": window.from_unix_millis,
        "to_unix_millis": window.to_unix_millis,
        "process_cpu_seconds": seconds(Duration::from_nanos(window.process_cpu_nanos)),
        "partitions": window.partitions.iter().map(partition_json).collect::<Vec<_>>(),
        "rest": meter_json(&rest),
    })
}

fn partition_json(usage: &v1::PartitionUsage) -> Value {
    json!({
        "partition": usage.replica,
        "meter": meter_json(&meter_of(usage)),
        "stored_bytes": usage.stored_bytes,
    })
}

fn seconds(time: Duration) -> f64 {
    time.as_secs_f64()
}

fn meter_json(meter: &Meter) -> Value {
    let mut value = json!({
        "cpu_seconds": seconds(meter.cpu),
        "fuel": meter.fuel,
        "wall_seconds": seconds(meter.wall),
        "throttled_seconds": seconds(meter.throttled),
        "memory_byte_seconds": meter.memory_byte_seconds,
        "requests": meter.requests(),
        "state_read_bytes": meter.state_read_bytes,
        "state_written_bytes": meter.state_written_bytes,
        "received_bytes": meter.received_bytes,
        "sent_bytes": meter.sent_bytes,
    });
    for outcome in RequestOutcome::ALL {
        value[outcome.as_str()] = meter.requests_of(outcome).into();
    }
    value
}
