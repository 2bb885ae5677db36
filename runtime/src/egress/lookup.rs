//! Looking up names. The system's resolver blocks for as long as its servers are silent, so each lookup has a thread of
//! its own; how many there are is bounded, for one policy and for the process.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::thread;

use tokio::sync::{Semaphore, oneshot};

/// Lookups of the whole process at the same time.
const MAX_LOOKUPS: usize = 64;
/// Stack of a lookup's thread: the resolver's own buffers are small.
const STACK_BYTES: usize = 256 << 10;

static LOOKUPS: Semaphore = Semaphore::const_new(MAX_LOOKUPS);

/// The addresses of a name. Waits where too many lookups run, of its policy (`own`) or of all.
pub(super) async fn lookup(own: &Arc<Semaphore>, name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let closed = |_| io::Error::other("lookups have ended");
    let own = Arc::clone(own).acquire_owned().await.map_err(closed)?;
    let all = LOOKUPS.acquire().await.map_err(closed)?;
    let (sender, found) = oneshot::channel();
    let name = name.to_owned();
    let resolving = move || {
        let addresses = (name.as_str(), port).to_socket_addrs().map(Iterator::collect);
        // Whoever asked may have given up; the thread takes its place until it really ends.
        drop((own, all));
        drop(sender.send(addresses));
    };
    thread::Builder::new().name("hvm-lookup".to_owned()).stack_size(STACK_BYTES).spawn(resolving)?;
    found.await.map_err(|_| io::Error::other("a lookup ended without a result"))?
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_policy_whose_lookups_are_taken_waits_and_others_do_not() {
        let (busy, idle) = (Arc::new(Semaphore::new(1)), Arc::new(Semaphore::new(1)));
        let taken = busy.acquire().await.expect("open");
        let waits = tokio::time::timeout(Duration::from_millis(50), lookup(&busy, "localhost", 80)).await;
        assert!(waits.is_err(), "it did not wait");
        let found = lookup(&idle, "localhost", 80).await.expect("every machine has one");
        assert!(found.iter().all(|address| address.ip().is_loopback() && address.port() == 80), "{found:?}");
        drop(taken);
        lookup(&busy, "localhost", 80).await.expect("its turn has come");
        assert_eq!(busy.available_permits(), 1);
    }
}
