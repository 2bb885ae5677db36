//! The daemon's own log: one line per event on stderr.

use tracing_subscriber::EnvFilter;

/// Starts it. `RUST_LOG` chooses what is written; without it, `info` and above.
pub(crate) fn start() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false).init();
}
