//! The HVM: runs partitions of apps as WebAssembly components, each isolated, limited and metered, with durable
//! state that has one writer.
//!
//! It is a library first. `examples/embed.rs` shows the whole of it (`examples/call.rs` without HTTP, by [`Hvm::call`]):
//!
//! ```no_run
//! use std::sync::Arc;
//! use hvm_runtime::state::{LocalConfig, LocalEngine};
//! use hvm_runtime::{Hvm, HvmConfig, PartitionSpec, RequestBody};
//!
//! # async fn embed() -> Result<(), Box<dyn std::error::Error>> {
//! let state = Arc::new(LocalEngine::start(LocalConfig::new("data/state"))?);
//! let hvm = Hvm::start(HvmConfig::new("data/code"), state)?;
//! let module = hvm.compile(std::fs::read("hello.wasm")?.into()).await?;
//! let id = "hello/web/0".parse()?;
//! hvm.open(PartitionSpec::new(id, module)).await?;
//!
//! let request = http::Request::get("/").body(RequestBody::empty())?;
//! let response = hvm.request(&"hello/web/0".parse()?, request).await?;
//! println!("{} {:?}", response.status(), response.into_body().collect().await?);
//! hvm.shutdown().await;
//! # Ok(()) }
//! ```
//!
//! How it works inside, from the edge inwards: [`Hvm`] hands a request to the worker that owns the partition;
//! `partition` lets it wait its turn, runs it in a `guest` instance, and commits what it did to the [`state`]
//! before the answer leaves. `capability` and [`egress`] are what a guest can reach. `module` compiles.

mod blocks;
mod body;
mod call;
mod capability;
mod changes;
mod compiling;
mod config;
mod core_dump;
pub mod egress;
mod engine;
mod error;
mod guest;
mod histogram;
mod host;
mod host_check;
mod hvm;
mod in_guest;
pub mod interrupt;
mod log;
mod memory;
mod meter;
mod module;
mod observe;
mod observed;
mod open_files;
mod partition;
mod places;
mod processor;
mod progress;
mod request_error;
mod spec;
pub mod state;
mod stream;
mod trace_context;
mod worker;

pub use body::{BodyError, RequestBody, ResponseBody};
pub use call::{Call, CallError, Failure, FailureKind};
pub(crate) use call::{CallKind, MAX_NAME_BYTES};
pub use changes::StateChanges;
pub use compiling::{CompileChild, Compiling};
pub use config::HvmConfig;
pub use core_dump::{CoreDump, CoreDumpError, CoreDumpWait};
pub use error::{
    CloseError, CompileError, MigrationError, NotGranted, OpenError, Possible, StartError, UpgradeError,
    WorkerStopped,
};
pub use histogram::Durations;
pub use host_check::{HostAdvice, HostLimits};
pub use hvm::{Hvm, PreparedHvm};
pub use log::{LogLevel, LogLine, LogSink, LogSource, TracingSink};
pub use module::{Module, compile_child};
pub use observe::{
    CompileChildren, Doing, HostObservation, PartitionStatus, PartitionUsage, Phase, PoolObservation, Usage,
    UsedSince,
};
pub use open_files::{OpenFiles, TooFewFiles};
pub use partition::{AT_LEAST, SEQUENCE};
pub use processor::measured_cpu;
pub use request_error::{RequestError, Trap};
pub use spec::PartitionSpec;
pub use worker::WorkerHandle;
