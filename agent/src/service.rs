//! The agent's API: logs, usage, partitions, core dumps and state files of this host.

use std::collections::{BTreeMap, HashMap};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt as _, stream};
use hvm_api::v1::agent_server::Agent as AgentApi;
use hvm_api::{ErrorKind, Failure, v1};
use hvm_runtime::{Doing, Hvm, LogSource, PartitionStatus};
use hvm_types::{HostId, Meter, ReplicaId};
use tokio::sync::broadcast;
use tonic::{Request, Response, Status, Streaming};

use crate::core_dump::core_dump;
use crate::failure_text::with_causes;
use crate::logs::{LogEntry, Logs, Prefix, StoredLine};
use crate::reconcile::Registry;
use crate::state_files::StateFiles;
use crate::usage::{UsageLedger, UsageReport, Window, unix_millis};

/// Offers the agent's API. It can be put on the agent's own listener or on another server.
#[derive(Debug, Clone)]
pub struct AgentService {
    pub(crate) host: HostId,
    pub(crate) hvm: Hvm,
    pub(crate) registry: Arc<Registry>,
    pub(crate) logs: Logs,
    pub(crate) usage: Arc<UsageLedger>,
    pub(crate) state_files: StateFiles,
}

/// Requests of one partition that are shown; who has more sees the oldest.
const MAX_DOING: usize = 100;

type CoreDumpStream = Pin<Box<dyn Stream<Item = Result<v1::CoreDumpPart, Status>> + Send>>;
type StateFileStream = Pin<Box<dyn Stream<Item = Result<v1::StateFilePart, Status>> + Send>>;
type CheckedStateStream = Pin<Box<dyn Stream<Item = Result<v1::CheckedState, Status>> + Send>>;
type LogStream = Pin<Box<dyn Stream<Item = Result<v1::LogLine, Status>> + Send>>;

#[tonic::async_trait]
impl AgentApi for AgentService {
    type GetLogsStream = LogStream;
    type GetCoreDumpStream = CoreDumpStream;
    type ExportStateStream = StateFileStream;
    type CheckStateStream = CheckedStateStream;

    async fn get_logs(
        &self,
        request: Request<v1::GetLogsRequest>,
    ) -> Result<Response<Self::GetLogsStream>, Status> {
        let request = request.into_inner();
        let prefix = selection(&request.prefix)?;
        let count = usize::try_from(request.last).unwrap_or(usize::MAX);
        let followed = self.logs.follow(prefix.clone(), count).await;
        let (lines, live) =
            followed.map_err(|error| Failure::new(ErrorKind::Unavailable, with_causes(&error)))?;
        // In number order, so that the last of each partition stays.
        let seen = lines.iter().map(|entry| (entry.replica.clone(), entry.line.number)).collect();
        let stored = stream::iter(lines).map(|entry| Ok(wire_line(entry)));
        if request.follow {
            Ok(Response::new(Box::pin(stored.chain(live_lines(live, prefix, seen)))))
        } else {
            Ok(Response::new(Box::pin(stored)))
        }
    }

    async fn get_usage(
        &self,
        request: Request<v1::GetUsageRequest>,
    ) -> Result<Response<v1::GetUsageResponse>, Status> {
        let request = request.into_inner();
        let prefix = selection(&request.prefix)?;
        self.usage.sample(&self.hvm).await;
        let since = (request.last_millis > 0).then(|| unix_millis().saturating_sub(request.last_millis));
        let UsageReport { sum, stored_bytes, durable_unix_millis } = self.usage.report(since);
        let windows = if request.windows { self.usage.windows(since.unwrap_or(0)) } else { Vec::new() };
        let rest = Meter { cpu: sum.host_cpu, ..Meter::default() };
        Ok(Response::new(v1::GetUsageResponse {
            host: self.host.to_string(),
            since_unix_millis: sum.from_unix_millis,
            until_unix_millis: sum.to_unix_millis,
            partitions: rows(&sum, &stored_bytes, &prefix),
            rest: Some((&rest).into()),
            process_cpu_nanos: nanos(sum.process_cpu),
            durable_unix_millis,
            windows: windows.iter().map(|window| wire_window(window, &prefix)).collect(),
        }))
    }

    async fn get_partitions(
        &self,
        request: Request<v1::GetPartitionsRequest>,
    ) -> Result<Response<v1::GetPartitionsResponse>, Status> {
        let prefix = selection(&request.into_inner().prefix)?;
        let statuses = self.hvm.observe();
        let reports = self.registry.replicas();
        let by_id: HashMap<&ReplicaId, &PartitionStatus> =
            statuses.iter().map(|status| (&status.id, status)).collect();
        let partitions = reports.into_iter().filter(|report| prefix.selects(&report.replica)).map(|report| {
            let status = by_id.get(&report.replica).copied();
            detail(report.into(), status)
        });
        Ok(Response::new(v1::GetPartitionsResponse { partitions: partitions.collect() }))
    }

    async fn get_core_dump(
        &self,
        request: Request<v1::GetCoreDumpRequest>,
    ) -> Result<Response<Self::GetCoreDumpStream>, Status> {
        let request = request.into_inner();
        let prefix = selection(&request.prefix)?;
        let after = (request.after_millis > 0).then(|| Duration::from_millis(request.after_millis));
        Ok(Response::new(Box::pin(core_dump(&self.hvm, &prefix, after)?)))
    }

    async fn list_state(
        &self,
        request: Request<v1::ListStateRequest>,
    ) -> Result<Response<v1::ListStateResponse>, Status> {
        let prefix = selection(&request.into_inner().prefix)?;
        let partitions = self.state_files.list(&prefix).await?;
        Ok(Response::new(v1::ListStateResponse { partitions }))
    }

    async fn export_state(
        &self,
        request: Request<v1::ExportStateRequest>,
    ) -> Result<Response<Self::ExportStateStream>, Status> {
        let replica = one_replica(&request.into_inner().replica)?;
        Ok(Response::new(Box::pin(self.state_files.export(replica).await?)))
    }

    async fn import_state(
        &self,
        request: Request<Streaming<v1::ImportStateRequest>>,
    ) -> Result<Response<v1::ImportStateResponse>, Status> {
        Ok(Response::new(self.state_files.import(request.into_inner()).await?))
    }

    async fn check_state(
        &self,
        request: Request<v1::CheckStateRequest>,
    ) -> Result<Response<Self::CheckStateStream>, Status> {
        let prefix = selection(&request.into_inner().prefix)?;
        Ok(Response::new(Box::pin(self.state_files.check(&prefix).await?)))
    }
}

fn selection(text: &str) -> Result<Prefix, Failure> {
    text.parse().map_err(|error| Failure::new(ErrorKind::Invalid, error))
}

/// The one partition that a request names.
pub(crate) fn one_replica(text: &str) -> Result<ReplicaId, Failure> {
    text.parse().map_err(|error| Failure::new(ErrorKind::Invalid, error))
}

fn detail(report: v1::ReplicaReport, status: Option<&PartitionStatus>) -> v1::PartitionDetail {
    let report = Some(report);
    let Some(status) = status else { return v1::PartitionDetail { report, ..Default::default() } };
    v1::PartitionDetail {
        report,
        sequence: status.sequence.0,
        mailbox: status.mailbox,
        instances: status.instances,
        memory_bytes: status.memory.0,
        doing: status.doing.iter().take(MAX_DOING).map(wire_doing).collect(),
    }
}

fn wire_doing(doing: &Doing) -> v1::Doing {
    v1::Doing {
        number: doing.number,
        what: doing.what.clone(),
        millis: millis(doing.since),
        phase: doing.phase.word().to_owned(),
        detail: doing.phase.to_string(),
        phase_millis: millis(doing.in_phase),
        trace: doing.trace.clone().unwrap_or_default(),
    }
}

fn rows(
    window: &Window,
    stored_bytes: &BTreeMap<ReplicaId, u64>,
    prefix: &Prefix,
) -> Vec<v1::PartitionUsage> {
    let selected = window.partitions.iter().filter(|(replica, _)| prefix.selects(replica));
    let row = |(replica, meter): (&ReplicaId, &Meter)| v1::PartitionUsage {
        replica: replica.to_string(),
        meter: Some(meter.into()),
        stored_bytes: stored_bytes.get(replica).copied().unwrap_or(0),
    };
    selected.map(row).collect()
}

fn wire_window(window: &Window, prefix: &Prefix) -> v1::UsageWindow {
    v1::UsageWindow {
        from_unix_millis: window.from_unix_millis,
        to_unix_millis: window.to_unix_millis,
        partitions: rows(window, &BTreeMap::new(), prefix),
        host_cpu_nanos: nanos(window.host_cpu),
        process_cpu_nanos: nanos(window.process_cpu),
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Live lines of the selected partitions that are newer than what was `seen` of each. Where the reader is too slow, a line says
/// how many it missed.
fn live_lines(
    live: broadcast::Receiver<LogEntry>,
    prefix: Prefix,
    seen: HashMap<ReplicaId, u64>,
) -> impl Stream<Item = Result<v1::LogLine, Status>> + Send {
    let is_new = move |entry: &LogEntry| {
        seen.get(&entry.replica).is_none_or(|number| entry.line.number > *number)
            && prefix.selects(&entry.replica)
    };
    stream::unfold((live, is_new), |(mut live, is_new)| async move {
        loop {
            match live.recv().await {
                Ok(entry) if is_new(&entry) => return Some((Ok(wire_line(entry)), (live, is_new))),
                Ok(_) => {}
                Err(broadcast::error::RecvError::Lagged(missed)) => {
                    return Some((Ok(missed_line(missed)), (live, is_new)));
                }
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    })
}

fn wire_line(entry: LogEntry) -> v1::LogLine {
    let StoredLine { unix_millis, level, source, text, .. } = entry.line;
    v1::LogLine { unix_millis, replica: entry.replica.to_string(), level, source, text }
}

fn missed_line(missed: u64) -> v1::LogLine {
    v1::LogLine {
        level: "warn".to_owned(),
        source: LogSource::Hvm.as_str().to_owned(),
        text: format!("{missed} lines of this host were skipped: they came faster than they were read"),
        ..Default::default()
    }
}
