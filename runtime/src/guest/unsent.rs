//! What a guest wrote to bodies and nobody took yet, in the account of its partition. The bytes stay there until the
//! last copy of them is gone, wherever that is: in the channel, in the hands of a slow reader, in a socket's buffer.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;
use wasmtime_wasi::p2::{DynOutputStream, OutputStream, Pollable, StreamError, StreamResult};

use crate::Trap;
use crate::memory::MemoryAccount;

/// Room that every instance has from the start: what small answers take costs no entry in the account.
const BASE_BYTES: u64 = 32 << 10;
/// Room is taken and given back in such pieces.
const STEP_BYTES: u64 = 64 << 10;
/// Less room than that is no room: a guest is not made to write byte by byte.
const LEAST_BYTES: u64 = 4 << 10;

/// The unsent bytes of one instance.
#[derive(Debug)]
pub(crate) struct Unsent {
    account: Arc<MemoryAccount>,
    held: Mutex<Held>,
    taken: Notify,
}

#[derive(Debug)]
struct Held {
    bytes: u64,
    /// What the account was told; never less than `bytes`.
    charged: u64,
}

impl Unsent {
    pub(crate) fn new(account: &Arc<MemoryAccount>) -> Result<Arc<Self>, Trap> {
        account.hold_making_room(BASE_BYTES, 0)?;
        let held = Mutex::new(Held { bytes: 0, charged: BASE_BYTES });
        Ok(Arc::new(Self { account: Arc::clone(account), held, taken: Notify::new() }))
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How much of `wanted` may be written now: nothing while others must read first.
    fn room(&self, wanted: u64) -> u64 {
        let mut held = self.held();
        let free = held.charged - held.bytes;
        if free >= wanted.min(LEAST_BYTES) {
            return free.min(wanted);
        }
        // Something is unsent, or there were room: its reader will make some.
        if self.charge(&mut held, wanted).is_ok() { wanted } else { 0 }
    }

    /// Charges for `more` bytes beyond those that are held.
    fn charge(&self, held: &mut Held, more: u64) -> Result<(), Trap> {
        let missing = (held.bytes + more).saturating_sub(held.charged);
        if missing > 0 {
            let missing = missing.next_multiple_of(STEP_BYTES);
            self.account.hold_making_room(missing, held.charged)?;
            held.charged += missing;
        }
        Ok(())
    }

    /// The same bytes, in the account for as long as they exist.
    fn hold(self: &Arc<Self>, bytes: Bytes) -> Result<Bytes, Trap> {
        if bytes.is_empty() {
            return Ok(bytes);
        }
        let length = bytes.len() as u64;
        let mut held = self.held();
        self.charge(&mut held, length)?;
        held.bytes += length;
        drop(held);
        Ok(Bytes::from_owner(Counted { bytes, unsent: Arc::clone(self) }))
    }

    fn give_back(&self, length: u64) {
        let mut held = self.held();
        held.bytes -= length;
        let keep = if held.bytes == 0 {
            BASE_BYTES
        } else {
            BASE_BYTES + (held.bytes + STEP_BYTES).next_multiple_of(STEP_BYTES)
        };
        if let Some(surplus) = held.charged.checked_sub(keep).filter(|surplus| *surplus > 0) {
            held.charged = keep;
            self.account.release(surplus);
        }
        drop(held);
        self.taken.notify_one();
    }
}

impl Drop for Unsent {
    fn drop(&mut self) {
        self.account.release(self.held().charged);
    }
}

/// Unsent bytes.
struct Counted {
    bytes: Bytes,
    unsent: Arc<Unsent>,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.unsent.give_back(self.bytes.len() as u64);
    }
}

/// The stream of an outgoing body, counted.
struct CountedStream {
    inner: DynOutputStream,
    unsent: Arc<Unsent>,
}

/// Counts what is written to a body's stream from now on.
pub(super) fn counted(inner: DynOutputStream, unsent: &Arc<Unsent>) -> DynOutputStream {
    Box::new(CountedStream { inner, unsent: Arc::clone(unsent) })
}

#[async_trait::async_trait]
impl OutputStream for CountedStream {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        let bytes = self.unsent.hold(bytes).map_err(|denied| StreamError::Trap(denied.into()))?;
        self.inner.write(bytes)
    }

    fn flush(&mut self) -> StreamResult<()> {
        self.inner.flush()
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        let permitted = self.inner.check_write()? as u64;
        Ok(usize::try_from(self.unsent.room(permitted)).unwrap_or(usize::MAX))
    }

    async fn cancel(&mut self) {
        self.inner.cancel().await;
    }
}

#[async_trait::async_trait]
impl Pollable for CountedStream {
    async fn ready(&mut self) {
        loop {
            self.inner.ready().await;
            // Whatever is not a reason to wait, `check_write` will tell.
            if !matches!(self.inner.check_write(), Ok(1..)) || self.unsent.room(1) > 0 {
                return;
            }
            self.unsent.taken.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use hvm_types::ByteSize;

    use super::*;
    use crate::memory::HostMemory;

    fn account(limit: ByteSize) -> Arc<MemoryAccount> {
        MemoryAccount::new(limit, HostMemory::new(ByteSize::mib(1024)), Arc::default())
    }

    #[test]
    fn bytes_are_in_the_account_until_their_last_copy_is_gone() {
        let account = account(ByteSize::mib(1));
        let unsent = Unsent::new(&account).expect("there is room");
        let small = unsent.hold(Bytes::from(vec![0; 100])).expect("within the base");
        assert_eq!(account.observe(), ByteSize(BASE_BYTES));
        let large = unsent.hold(Bytes::from(vec![0; 200 << 10])).expect("there is room");
        let copy = large.slice(10..20);
        drop((small, large));
        assert!(account.observe() >= ByteSize(200 << 10), "{}", account.observe());
        drop(copy);
        assert_eq!(account.observe(), ByteSize(BASE_BYTES));
        let left = unsent.hold(Bytes::from(vec![0; 200 << 10])).expect("there is room");
        drop(unsent);
        assert!(account.observe() >= ByteSize(200 << 10), "the instance is gone, its bytes are not");
        drop(left);
        assert_eq!(account.observe(), ByteSize(0));
    }

    #[test]
    fn a_writer_waits_for_readers_where_the_limit_is_reached() {
        let account = account(ByteSize(BASE_BYTES + 2 * STEP_BYTES));
        let unsent = Unsent::new(&account).expect("there is room");
        let mut written = Vec::new();
        loop {
            let room = unsent.room(STEP_BYTES);
            if room == 0 {
                break;
            }
            let bytes = vec![0; usize::try_from(room).expect("small")];
            written.push(unsent.hold(bytes.into()).expect("it was allowed"));
        }
        assert_eq!(account.observe(), ByteSize(BASE_BYTES + 2 * STEP_BYTES));
        assert_eq!(unsent.hold(vec![0].into()), Err(Trap::Memory { limit: account.limit() }));
        written.pop();
        assert!(unsent.room(STEP_BYTES) > 0);
        written.clear();
        assert_eq!(account.observe(), ByteSize(BASE_BYTES));
    }
}
