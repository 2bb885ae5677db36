//! Ends a window every five seconds.

use std::sync::Arc;
use std::time::Duration;

use hvm_runtime::Hvm;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::UsageLedger;

/// Length of a window: what a crash may lose.
const WINDOW: Duration = Duration::from_secs(5);

/// Samples the HVM and makes the meters durable, window by window.
#[derive(Debug)]
pub(crate) struct UsageLoop {
    stop: watch::Sender<bool>,
    join: JoinHandle<()>,
}

impl UsageLoop {
    pub(crate) fn start(ledger: Arc<UsageLedger>, hvm: Hvm) -> Self {
        let (stop, mut stopped) = watch::channel(false);
        let join = tokio::spawn(async move {
            let mut must_stop = false;
            while !must_stop {
                must_stop = tokio::time::timeout(WINDOW, stopped.wait_for(|stopped| *stopped)).await.is_ok();
                end_window(&ledger, &hvm).await;
            }
        });
        Self { stop, join }
    }

    /// Ends the last window.
    pub(crate) async fn stop(self) {
        self.stop.send_replace(true);
        if self.join.await.is_err() {
            tracing::error!("the usage loop panicked");
        }
    }
}

async fn end_window(ledger: &Arc<UsageLedger>, hvm: &Hvm) {
    ledger.sample(hvm).await;
    let ledger = Arc::clone(ledger);
    match tokio::task::spawn_blocking(move || ledger.end_window()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            let reason = crate::failure_text::with_causes(&error);
            tracing::warn!(reason, "the meters are not durable; they are kept in the next window");
        }
        Err(error) => tracing::error!(%error, "keeping the meters was broken off"),
    }
}
