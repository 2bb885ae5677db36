//! The scheduler: turns intent and observation into assignments, and nothing else.
//!
//! ```text
//!  operators ──► service ──► admission ──► store ──► reconcile ─► planner (pure)
//!                   │                        ▲            │           │
//!  agents  ──reports┴──► observations ───────┼────────────┘           │
//!          ◄─documents── view ◄──────────────┴────────── documents ◄──┘
//! ```
//!
//! `store` keeps documents, `documents` says which; `planner` is a pure function from documents and
//! observations to new documents; the loop in `reconcile` runs it on every change; `admission` decides what
//! may be deployed; `blobs` keeps images' bytes; `service` offers all this over gRPC. Loops: the
//! `ReconcileLoop`, and the store's `LeaseLoop`.
//!
//! Architecture invariant: it never links the runtime, and never runs or parses a component.

mod admission;
mod blobs;
mod core;
pub mod documents;
mod failure;
mod observations;
pub mod planner;
mod reconcile;
mod scheduler;
mod service;
mod status;
pub mod store;
mod view;

pub use core::ImageCheck;
pub use scheduler::{Scheduler, SchedulerConfig, SchedulerHandle, StartError};
