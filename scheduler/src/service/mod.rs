//! The gRPC services: reading requests, calling what does the work, writing answers. No decisions here.

mod control;
mod deployments;
mod host_control;
mod image_manifest;
mod images;
mod serve;

pub(crate) use serve::{Server, routes};
