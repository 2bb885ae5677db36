//! The agent of one host: fetches and verifies images, runs what the scheduler assigned in an in-process
//! HVM, answers requests at the ingress, and keeps logs and meters.
//!
//! It holds no opinion of its own about what should run: the host document says that. Without a scheduler it
//! keeps what it has, also over a restart.
//!
//! The loops of an agent, and what flows between them:
//!
//! ```text
//!  scheduler ──document──▶ link ──▶ document (watch, on disk) ──▶ reconcile loop ──steps──▶ Hvm
//!      ▲                    │                   │                    │    ▲                  ▲
//!      └──────report────────┘◀────registry──────┼────────────────────┘    └── images (pull,  │
//!                                               ▼                             verify)        │
//!  clients ─────────────────────────▶ ingress, one accept loop a worker ─────────────────────┘
//!  guests  ──lines──▶ log writer thread ──▶ files        Hvm ──meters──▶ usage loop ──▶ file
//! ```

mod agent;
mod api_server;
mod config;
mod core_dump;
mod data_dir;
mod failure_text;
mod images;
mod ingress;
mod link;
mod logs;
mod metrics;
mod reconcile;
mod service;
mod start_error;
mod state_files;
mod state_store;
mod usage;

pub use agent::{Agent, AgentHandle};
pub use config::{AgentConfig, ApiListen};
pub use data_dir::DataDirError;
pub use hvm_runtime::state::S3Config;
pub use hvm_runtime::state::file::{FileSummary as StateFileSummary, verify as verify_state_file};
pub use hvm_runtime::{CompileChild, Compiling, compile_child};
pub use images::BlobError;
pub use ingress::{IngressError, MAX_KEY_BYTES, partition_of};
pub use link::SchedulerAddressError;
pub use logs::LogsError;
pub use reconcile::DocumentError;
pub use service::AgentService;
pub use start_error::StartError;
pub use state_store::{StateStore, StateStoreError};
pub use usage::UsageError;
