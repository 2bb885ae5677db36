//! From an image file to a server that ends on a signal.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hvm_appimage::{Image, TrustPolicy, UnverifiedImage, VerifyError};
use hvm_runtime::state::{LocalConfig, LocalEngine};
use hvm_runtime::{Hvm, HvmConfig};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tracing_subscriber::EnvFilter;

use super::log_lines::LogLines;
use super::{package, server};
use crate::arguments::Run;
use crate::failure::Failure;

/// Most instances in memory: one partition needs few, whatever it does.
const MAX_INSTANCES: u32 = 32;

pub(crate) fn run(arguments: Run) -> Result<String, Failure> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_env_filter(EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn")))
        .init();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("cannot start: {error}")))?;
    runtime.block_on(serve(arguments))
}

async fn serve(arguments: Run) -> Result<String, Failure> {
    let image = open(&arguments)?;
    let package = package::choose(&image, &arguments)?;
    let component = image.component(&package.name)?;

    // Before anything is written or compiled: a port in use is the likeliest mistake.
    let listener = TcpListener::bind(arguments.listen).await.map_err(|error| {
        Failure::new(format!("cannot listen on {}: {error}", arguments.listen))
            .hint("choose another address with --listen; 127.0.0.1:0 takes a free port")
    })?;
    let address = listener.local_addr().unwrap_or(arguments.listen);
    let data = DataDirectory::open(arguments.data.as_deref())?;
    let log = Arc::new(LogLines::start());
    let hvm = start(&data, Arc::clone(&log))?;
    let module = hvm.compile(component.into()).await?;
    hvm.open(package.spec(module)).await?;

    let trust = if arguments.trust.is_some() { "signature verified" } else { "signature not checked" };
    let config = image.config();
    let line = format!("{} {} ({trust}) on http://{address}/\n", config.app, config.version);
    // Whoever closed our output does not want to read it; we serve all the same.
    let _ = std::io::stdout().write_all(line.as_bytes()).and_then(|()| std::io::stdout().flush());

    let served = server::serve_until_signal(listener, hvm.clone(), package.id.clone()).await;
    hvm.shutdown().await;
    log.finish();
    served.map(|()| String::new())
}

fn open(arguments: &Run) -> Result<Image, Failure> {
    let policy = arguments.trust.as_deref().map(TrustPolicy::load).transpose()?;
    let opened = UnverifiedImage::open_file(&arguments.file).map_err(VerifyError::from);
    let image = opened.and_then(|image| match &policy {
        Some(policy) => image.verify(policy),
        None => Ok(image.without_signature()?),
    });
    image.map_err(|error| Failure::from(error).in_file(&arguments.file))
}

fn start(data: &DataDirectory, log: Arc<LogLines>) -> Result<Hvm, Failure> {
    let state = LocalEngine::start(LocalConfig::new(data.path().join("state")))?;
    let mut config = HvmConfig::new(data.path().join("code"));
    config.max_instances = MAX_INSTANCES;
    config.log = log;
    Ok(Hvm::start(config, Arc::new(state))?)
}

/// Where state and compiled code are kept.
enum DataDirectory {
    Kept(PathBuf),
    Temporary(TempDir),
}

impl DataDirectory {
    fn open(kept: Option<&Path>) -> Result<Self, Failure> {
        let failed = |error| Failure::new(format!("cannot make the data directory: {error}"));
        match kept {
            Some(path) => {
                std::fs::create_dir_all(path).map_err(failed)?;
                Ok(Self::Kept(path.to_owned()))
            }
            None => {
                let directory = tempfile::Builder::new().prefix("appimage-tool-run-").tempdir();
                Ok(Self::Temporary(directory.map_err(failed)?))
            }
        }
    }

    fn path(&self) -> &Path {
        match self {
            Self::Kept(path) => path,
            Self::Temporary(directory) => directory.path(),
        }
    }
}
