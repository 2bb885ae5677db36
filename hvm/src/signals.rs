//! Waiting for the signal to stop.

use tokio::signal::unix::{SignalKind, signal};

/// Returns when SIGINT or SIGTERM arrives, with its name.
///
/// # Errors
/// Where the system refuses a handler.
pub(crate) async fn stop_signal() -> std::io::Result<&'static str> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(tokio::select! {
        _ = interrupt.recv() => "SIGINT",
        _ = terminate.recv() => "SIGTERM",
    })
}
