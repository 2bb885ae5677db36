//! The seam to chance and time: a simulation puts its own in.

use std::fmt;
use std::time::Duration;

use futures::future::BoxFuture;

use super::names::Nonce;

/// Where an engine gets random bytes and pauses from.
pub(super) trait Surroundings: fmt::Debug + Send + Sync {
    /// Bytes that nobody else draws.
    fn nonce(&self) -> Nonce;

    /// Resolves after this time.
    fn sleep(&self, pause: Duration) -> BoxFuture<'static, ()>;
}

/// The operating system's chance and tokio's time.
#[derive(Debug)]
pub(super) struct System;

impl Surroundings for System {
    fn nonce(&self) -> Nonce {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).expect("the operating system has random bytes");
        Nonce(bytes)
    }

    fn sleep(&self, pause: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(pause))
    }
}
