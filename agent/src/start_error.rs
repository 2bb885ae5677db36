//! Why an agent could not start.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use hvm_types::{ByteSize, CpuMhz};

use crate::data_dir::DataDirError;
use crate::images::BlobError;
use crate::ingress::IngressError;
use crate::link::SchedulerAddressError;
use crate::logs::LogsError;
use crate::reconcile::DocumentError;
use crate::state_store::StateStoreError;
use crate::usage::UsageError;

/// An agent that could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The process may have too few files open.
    #[error(transparent)]
    OpenFiles(#[from] hvm_runtime::TooFewFiles),
    /// The data directory can't be taken.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// Nothing would be placed here.
    #[error(
        "offer {offered} of memory to partitions: one whose deployment says nothing else needs {least} MB; offer at least \
         `--memory {least}`"
    )]
    LittleMemory {
        /// What the host is to offer.
        offered: ByteSize,
        /// Least that makes sense, in MB.
        least: u64,
    },
    /// Nothing could be set aside here.
    #[error(
        "offer {offered} of the processors to partitions, which is too little to be shared out: offer at least `--cpu {}`",
        least.0
    )]
    LittleCpu {
        /// What the host is to offer.
        offered: CpuMhz,
        /// Least that makes sense.
        least: CpuMhz,
    },
    /// The trust policy is wrong. A missing one is no error here: nothing runs then, and says so.
    #[error("read the trust policy {}", path.display())]
    Trust {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: hvm_appimage::PolicyError,
    },
    /// The durable state can't be opened.
    #[error(transparent)]
    State(#[from] StateStoreError),
    /// The HVM could not start.
    #[error("start the HVM")]
    Hvm(#[from] hvm_runtime::StartError),
    /// The image store can't be opened.
    #[error("open the image store")]
    Images(#[from] BlobError),
    /// The logs can't be kept.
    #[error(transparent)]
    Logs(#[from] LogsError),
    /// The meters can't be read.
    #[error(transparent)]
    Usage(#[from] UsageError),
    /// The kept host document can't be read.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// The ingress can't listen.
    #[error(transparent)]
    Ingress(#[from] IngressError),
    /// The API's port is taken.
    #[error(
        "listen on {address} for the agent's API: the port is in use; stop what uses it or choose another one"
    )]
    ApiInUse {
        /// The address.
        address: SocketAddr,
    },
    /// The API can't listen.
    #[error("listen on {address} for the agent's API")]
    Api {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The scheduler's address is wrong.
    #[error(transparent)]
    Scheduler(#[from] SchedulerAddressError),
    /// Other hosts could not reach this one.
    #[error(
        "tell others where the {what} is: it listens on every address ({address}); give the one to advertise"
    )]
    NotAdvertised {
        /// The ingress or the API.
        what: &'static str,
        /// Where it listens.
        address: SocketAddr,
    },
    /// A file of the data directory can't be written.
    #[error("write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}
