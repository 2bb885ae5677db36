//! The scheduler as a whole: its parts built, its loop and its server running.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::blobs::BlobStore;
use crate::core::{Core, ImageCheck};
use crate::documents::World;
use crate::failure::line_of;
use crate::observations::Observations;
use crate::reconcile;
use crate::service::{Server, routes};
use crate::store::EmbeddedStore;

/// What a scheduler is started with.
#[derive(Clone)]
pub struct SchedulerConfig {
    /// Where documents and images are kept. One process at a time.
    pub data_dir: PathBuf,
    /// How long a host counts as alive after its last report.
    pub lease: Duration,
    /// A check of its own for images that are sent to it; see [`ImageCheck`].
    pub image_check: Option<ImageCheck>,
}

impl SchedulerConfig {
    /// The lease where nothing else is said.
    pub const DEFAULT_LEASE: Duration = Duration::from_secs(5);

    /// The default configuration for a data directory.
    #[must_use]
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self { data_dir: data_dir.into(), lease: Self::DEFAULT_LEASE, image_check: None }
    }
}

/// Why a scheduler could not start: a whole sentence with its causes.
#[derive(Debug, thiserror::Error)]
#[error("start the scheduler: {reason}")]
pub struct StartError {
    reason: String,
}

impl StartError {
    fn new(error: &dyn std::error::Error) -> Self {
        Self { reason: line_of(error) }
    }
}

/// A scheduler whose loop runs. [`Self::serve`] lets others reach it.
pub struct Scheduler {
    core: Arc<Core>,
    reconcile_loop: JoinHandle<()>,
}

impl Scheduler {
    /// Opens the data directory and starts planning. Must be called in a tokio runtime with threads to
    /// block on.
    ///
    /// # Errors
    /// Where another process uses the directory, or something in it can't be read.
    pub async fn open(config: SchedulerConfig) -> Result<Self, StartError> {
        let store = EmbeddedStore::open(&config.data_dir).map_err(|error| StartError::new(&error))?;
        let blobs = BlobStore::open(&config.data_dir).map_err(|error| StartError::new(&error))?;
        let world = World::load(&store).await.map_err(|error| StartError::new(&error))?;
        let core = Arc::new(Core {
            store: Arc::new(store),
            blobs,
            observations: Observations::new(),
            published: watch::channel(reconcile::first_published(&world)).0,
            leases: Mutex::default(),
            lease_ttl: config.lease,
            image_check: config.image_check,
            stop: CancellationToken::new(),
        });
        let reconcile_loop = tokio::spawn(reconcile::run(Arc::clone(&core), world));
        Ok(Self { core, reconcile_loop })
    }

    /// Serves it on `listener`, together with what `extend` adds: `|routes| routes` adds nothing.
    ///
    /// # Errors
    /// Where the listener has no address.
    pub fn serve(
        self,
        listener: TcpListener,
        extend: impl FnOnce(Routes) -> Routes,
    ) -> Result<SchedulerHandle, StartError> {
        let routes = extend(routes(&self.core));
        let server = Server::start(routes, self.core.stop.clone(), listener)
            .map_err(|error| StartError::new(&error))?;
        Ok(SchedulerHandle { scheduler: self, server })
    }

    /// Opens a scheduler and serves it on `listener`.
    ///
    /// # Errors
    /// Those of [`Self::open`] and [`Self::serve`].
    pub async fn start(
        config: SchedulerConfig,
        listener: TcpListener,
    ) -> Result<SchedulerHandle, StartError> {
        Self::open(config).await?.serve(listener, |routes| routes)
    }

    /// Stops planning and ends all streams. What hosts run goes on running.
    pub async fn shutdown(self) {
        self.core.stop.cancel();
        if let Err(error) = self.reconcile_loop.await {
            tracing::error!(error = &error as &dyn std::error::Error, "the planning loop had ended");
        }
    }
}

/// A scheduler that serves its API.
pub struct SchedulerHandle {
    scheduler: Scheduler,
    server: Server,
}

impl SchedulerHandle {
    /// Where it serves.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Stops it: no new calls, a short grace for those that run. What hosts run goes on running.
    pub async fn shutdown(self) {
        self.scheduler.core.stop.cancel();
        self.server.ended().await;
        self.scheduler.shutdown().await;
    }
}
