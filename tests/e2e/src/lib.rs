//! What the end-to-end stories share: the real programs as child processes, images made with the real
//! author's program, an HTTP client, and waiting for a predicate.
//!
//! A test here drives programs from outside, as a person would; what a lower test can show is not shown here.

mod app;
mod client;
mod program;
mod s3;
mod server;
mod wait;

pub use app::{App, Workshop};
pub use client::{Answer, Client};
pub use program::{Output, program, run};
pub use s3::S3Server;
pub use server::{Daemon, Heard, Role, Starting};
pub use wait::eventually;
