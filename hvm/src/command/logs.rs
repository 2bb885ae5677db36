//! `hvm logs`: the lines of an app's partitions, from all hosts, by time.

use hvm_api::v1;
use serde_json::json;
use tokio_stream::{StreamExt, StreamMap};
use tonic::Streaming;

use crate::cli::LogsArgs;
use crate::client::Control;
use crate::command::existing;
use crate::failure::Failure;
use crate::out;

/// Runs `hvm logs`.
pub(crate) async fn logs(args: LogsArgs) -> Result<(), Failure> {
    let mut control = Control::connect(&args.list.api).await?;
    // The lines of what was stopped are still on its hosts.
    if args.follow && stored(&mut control, &args.of, 1).await?.is_empty() {
        existing::check(&mut control, &args.of).await?;
    }
    if args.follow {
        let mut streams = streams(&mut control, &args.of, args.last, true).await?;
        while let Some((host, line)) = streams.next().await {
            print(&line.map_err(|status| Failure::of_call(&host, &status))?, args.list.json, 0);
        }
        return Ok(());
    }
    // Of at least one line, to tell what wrote nothing from what does not exist.
    let mut lines = stored(&mut control, &args.of, args.last.max(1)).await?;
    if lines.is_empty() {
        existing::check(&mut control, &args.of).await?;
        if !args.list.json {
            eprintln!("there is no line of `{}`", args.of);
        }
    }
    lines.sort_by_key(|line| line.unix_millis);
    let surplus = lines.len().saturating_sub(usize::try_from(args.last).unwrap_or(usize::MAX));
    let shown = &lines[surplus..];
    let width = shown.iter().map(|line| line.replica.len()).max().unwrap_or_default();
    for line in shown {
        print(line, args.list.json, width);
    }
    Ok(())
}

/// The last lines that are stored on all hosts, by host.
async fn stored(control: &mut Control, of: &str, last: u32) -> Result<Vec<v1::LogLine>, Failure> {
    let mut streams = streams(control, of, last, false).await?;
    let mut lines = Vec::new();
    while let Some((host, line)) = streams.next().await {
        lines.push(line.map_err(|status| Failure::of_call(&host, &status))?);
    }
    Ok(lines)
}

async fn streams(
    control: &mut Control,
    of: &str,
    last: u32,
    follow: bool,
) -> Result<StreamMap<String, Streaming<v1::LogLine>>, Failure> {
    let request = v1::GetLogsRequest { prefix: of.to_owned(), last, follow };
    let mut streams = StreamMap::new();
    for (host, mut agent) in control.agents().await? {
        let stream = agent.get_logs(request.clone()).await.map_err(|s| Failure::of_call(&host, &s))?;
        streams.insert(host, stream.into_inner());
    }
    Ok(streams)
}

/// Writes one line, the name of its partition padded to `width`.
fn print(line: &v1::LogLine, json: bool, width: usize) {
    if json {
        let value = json!({
            "unix_millis": line.unix_millis, "partition": line.replica, "level": line.level,
            "source": line.source, "text": line.text,
        });
        out::line(value);
    } else {
        let time = timestamp(line.unix_millis);
        out::line(format!(
            "{time}  {:width$}  {:<5}  {:<7}  {}",
            line.replica, line.level, line.source, line.text
        ));
    }
}

/// RFC 3339 in UTC, to the millisecond.
fn timestamp(unix_millis: u64) -> String {
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_millis(unix_millis);
    humantime::format_rfc3339_millis(time).to_string()
}
