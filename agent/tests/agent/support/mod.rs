//! What the tests share: images, a scheduler that says what the test says, an agent, a client.

mod client;
mod document;
mod host;
mod image;
pub(crate) mod openmetrics;
mod scheduler;

pub(crate) use document::{assignments, document};
pub(crate) use host::{Host, PATIENCE, eventually};
pub(crate) use image::{Image, Keys};
pub(crate) use scheduler::{Reported, Scheduler};
