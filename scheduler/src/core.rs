//! What the loop and the services share.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hvm_types::{HostId, ImageDocument, RoutingTable};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::blobs::BlobStore;
use crate::documents::World;
use crate::observations::Observations;
use crate::store::{CoordinationStore, LeaseId};

/// Decides whether the scheduler takes an image, given its listing and the directory that holds
/// `blobs/sha256`. An error is the reason, for a person. Hosts check every image for themselves in any case.
pub type ImageCheck = Arc<dyn Fn(&ImageDocument, &Path) -> Result<(), String> + Send + Sync>;

/// The documents as of some moment, and the routing table that follows from them.
#[derive(Debug, Clone)]
pub(crate) struct Published {
    pub(crate) world: Arc<World>,
    pub(crate) routing: Arc<RoutingTable>,
}

/// The parts of one scheduler.
pub(crate) struct Core {
    pub(crate) store: Arc<dyn CoordinationStore>,
    pub(crate) blobs: BlobStore,
    pub(crate) observations: Observations,
    pub(crate) published: watch::Sender<Published>,
    /// The leases of hosts, so that a report need not read the store.
    pub(crate) leases: Mutex<HashMap<HostId, LeaseId>>,
    pub(crate) lease_ttl: Duration,
    pub(crate) image_check: Option<ImageCheck>,
    pub(crate) stop: CancellationToken,
}
