//! The connection to the scheduler: makes the host known, takes its document, reports what runs. Whatever
//! fails here is tried again, and nothing that runs depends on it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hvm_api::limit::MESSAGE_MAX_BYTES;
use hvm_api::v1::host_control_client::HostControlClient;
use hvm_api::{Failure, InvalidField, v1};
use hvm_types::{HostDocument, HostSpec};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic::transport::{Channel, Endpoint};

use crate::failure_text::with_causes;
use crate::reconcile::{HostReport, Registry};
use crate::usage::unix_millis;

/// How often the host reports when nothing changes: that renews the lease, and says nothing else.
const REPORT_PERIOD: Duration = Duration::from_secs(1);

/// The shortest time between two reports, however much changes.
const REPORT_PAUSE: Duration = Duration::from_millis(100);

/// How long a call may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// How often the scheduler is asked whether it still lives, and how long it may take to say so.
const PING_PERIOD: Duration = Duration::from_secs(5);

/// The first and the longest wait before connecting again.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(3);

/// A scheduler's address that can't be used.
#[derive(Debug, thiserror::Error)]
#[error("use `{address}` as the scheduler's address: write http://host:port")]
pub struct SchedulerAddressError {
    /// What was given.
    pub address: String,
    /// What is wrong with it.
    pub source: tonic::transport::Error,
}

/// A connection to the scheduler that is made when it is needed, and again whenever it broke.
pub(crate) fn channel(address: &str) -> Result<Channel, SchedulerAddressError> {
    let endpoint = Endpoint::from_shared(address.to_owned())
        .map_err(|source| SchedulerAddressError { address: address.to_owned(), source })?;
    Ok(endpoint
        .connect_timeout(CALL_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(PING_PERIOD)
        .keep_alive_timeout(PING_PERIOD)
        .keep_alive_while_idle(true)
        .connect_lazy())
}

/// What the link needs.
pub(crate) struct Link {
    pub(crate) channel: Channel,
    pub(crate) host: HostSpec,
    /// Tells this data directory from another one under the same host id.
    pub(crate) data_id: String,
    pub(crate) registry: Arc<Registry>,
    pub(crate) documents: watch::Sender<Option<Arc<HostDocument>>>,
    /// Set once a document came, be it the one that was kept.
    pub(crate) confirmed: watch::Sender<bool>,
}

/// The running link.
#[derive(Debug)]
pub(crate) struct LinkHandle(JoinHandle<()>);

impl LinkHandle {
    /// Breaks the connection off. The lease runs out by itself.
    pub(crate) async fn stop(self) {
        self.0.abort();
        let _ = self.0.await; // it was aborted
    }
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum LinkError {
    #[error("{call}")]
    Call { call: &'static str, source: Failure },
    #[error("{call}: no answer within {CALL_TIMEOUT:?}")]
    TooSlow { call: &'static str },
    #[error("the host document is not valid")]
    Document(#[source] InvalidField),
    #[error("the scheduler ended the stream of documents")]
    StreamEnded,
    #[error("the scheduler does not know this host any more")]
    Unknown,
}

impl Link {
    /// Connects, and keeps connecting.
    pub(crate) fn start(self) -> LinkHandle {
        LinkHandle(tokio::spawn(self.run()))
    }

    async fn run(self) {
        let mut wait = FIRST_WAIT;
        loop {
            let mut was_joined = false;
            let error = match self.serve(&mut was_joined).await {
                Err(error) => error,
                Ok(never) => match never {},
            };
            if was_joined {
                wait = FIRST_WAIT;
            }
            let reason = with_causes(&error);
            tracing::info!(reason, "no connection to the scheduler; what runs goes on");
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    /// One connection, to its end.
    async fn serve(&self, was_joined: &mut bool) -> Result<std::convert::Infallible, LinkError> {
        let mut client = HostControlClient::new(self.channel.clone())
            .max_decoding_message_size(MESSAGE_MAX_BYTES)
            .max_encoding_message_size(MESSAGE_MAX_BYTES);
        let join = v1::JoinRequest { host: Some(self.host.clone().into()), data_id: self.data_id.clone() };
        call("join the scheduler", client.join(join)).await?;
        let watch = v1::WatchDocumentRequest { host: self.host.id.to_string() };
        let stream = call("watch the host document", client.watch_document(watch)).await?;
        *was_joined = true;
        tracing::info!("joined the scheduler");
        tokio::select! {
            ended = self.take_documents(stream) => ended,
            ended = self.report(client) => ended,
        }
    }

    async fn take_documents(
        &self,
        mut stream: tonic::Streaming<v1::HostDocument>,
    ) -> Result<std::convert::Infallible, LinkError> {
        loop {
            let message = stream.message().await;
            let message = message.map_err(|status| failed("receive the host document", &status))?;
            let message = message.ok_or(LinkError::StreamEnded)?;
            let document = HostDocument::try_from(message).map_err(LinkError::Document)?;
            let mut is_newest = true;
            self.documents.send_if_modified(|current| {
                let newest = current.as_ref().map_or(0, |current| current.version);
                if document.version < newest {
                    // Its store is new, or a copy of an old one. What runs is not stopped for that.
                    tracing::error!(
                        offered = document.version,
                        newest,
                        "the scheduler forgot what it had assigned to this host: restore its data directory; \
                         until then this host keeps what it runs (to obey the scheduler, stop the agent and \
                         remove document.json from its data directory)"
                    );
                    is_newest = false;
                    return false;
                }
                let is_new = current.as_deref() != Some(&document);
                if is_new {
                    *current = Some(Arc::new(document));
                }
                is_new
            });
            if is_newest {
                self.confirmed.send_replace(true);
            }
        }
    }

    async fn report(
        &self,
        mut client: HostControlClient<Channel>,
    ) -> Result<std::convert::Infallible, LinkError> {
        let mut changes = self.registry.changes();
        // Reports of earlier connections and of an agent before this one had smaller numbers.
        let mut number = unix_millis();
        let mut after = 0;
        loop {
            changes.borrow_and_update();
            let began = Instant::now();
            let HostReport { is_whole, replicas, gone, applied } = self.registry.report(after == 0);
            number += 1;
            let report = v1::ReportRequest {
                host: self.host.id.to_string(),
                replicas: replicas.into_iter().map(Into::into).collect(),
                applied: Some(applied),
                number,
                after: if is_whole { 0 } else { after },
                gone: gone.iter().map(ToString::to_string).collect(),
            };
            let answer = call("report to the scheduler", client.report(report)).await?;
            if !answer.known {
                return Err(LinkError::Unknown);
            }
            after = if answer.wants_everything { 0 } else { number };
            // A report of many replicas costs both ends something: most of the time is for other things.
            let pause = (began.elapsed() * 4).clamp(REPORT_PAUSE, REPORT_PERIOD);
            tokio::time::sleep(pause).await;
            if after > 0 {
                // The registry lives as long as this.
                let _ = tokio::time::timeout(REPORT_PERIOD - pause, changes.changed()).await;
            }
        }
    }
}

async fn call<T>(
    call: &'static str,
    answer: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> Result<T, LinkError> {
    match tokio::time::timeout(CALL_TIMEOUT, answer).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(failed(call, &status)),
        Err(_) => Err(LinkError::TooSlow { call }),
    }
}

fn failed(call: &'static str, status: &tonic::Status) -> LinkError {
    LinkError::Call { call, source: Failure::from(status) }
}
