//! Who holds how much memory: the account of one version of a partition, the sum of the host, and the limiter
//! that every instance is bound to.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use hvm_types::ByteSize;
use tokio::sync::Notify;
use wasmtime::ResourceLimiterAsync;

use crate::Trap;
use crate::core_dump::{DumpSlot, stop_before};
use crate::interrupt::TICK_GROWTH;
use crate::meter::MeterCell;
use crate::progress::Progress;
use crate::worker::{Local, give_way_in_time};

/// Bytes of one element of a table: a pointer.
const TABLE_ELEMENT_BYTES: u64 = 8;
/// Most core instances, tables and memories of one component instance.
const MAX_CORE_INSTANCES: usize = 64;
/// See [`MAX_CORE_INSTANCES`].
pub(crate) const MAX_TABLES: u32 = 8;
/// See [`MAX_CORE_INSTANCES`].
pub(crate) const MAX_MEMORIES: u32 = 4;

/// What all partitions of the host hold together.
#[derive(Debug)]
pub(crate) struct HostMemory {
    limit: u64,
    used: AtomicU64,
    /// Bytes of large instances that are going: still held, and soon free.
    leaving: AtomicU64,
    left: Notify,
}

/// A large instance goes until this is dropped.
#[derive(Debug)]
pub(crate) struct Leaves {
    account: Arc<MemoryAccount>,
    bytes: u64,
}

impl Leaves {
    /// An instance of this account that holds so much begins to go.
    pub(crate) fn begin(account: &Arc<MemoryAccount>, bytes: u64) -> Self {
        account.leaving.fetch_add(bytes, Relaxed);
        account.host.leaving.fetch_add(bytes, Relaxed);
        Self { account: Arc::clone(account), bytes }
    }
}

impl Drop for Leaves {
    fn drop(&mut self) {
        self.account.leaving.fetch_sub(self.bytes, Relaxed);
        self.account.host.leaving.fetch_sub(self.bytes, Relaxed);
        self.account.host.left.notify_waiters();
    }
}

impl HostMemory {
    pub(crate) fn new(limit: ByteSize) -> Arc<Self> {
        Arc::new(Self {
            limit: limit.0,
            used: AtomicU64::new(0),
            leaving: AtomicU64::new(0),
            left: Notify::new(),
        })
    }

    /// What they hold now.
    pub(crate) fn used(&self) -> ByteSize {
        ByteSize(self.used.load(Relaxed))
    }

    fn hold(&self, bytes: u64) -> bool {
        self.used
            .try_update(Relaxed, Relaxed, |used| used.checked_add(bytes).filter(|sum| *sum <= self.limit))
            .is_ok()
    }

    fn release(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Relaxed);
    }
}

/// What the instances of one version of a partition hold together.
#[derive(Debug)]
pub(crate) struct MemoryAccount {
    limit: u64,
    host: Arc<HostMemory>,
    meter: Arc<MeterCell>,
    ledger: Mutex<Ledger>,
    /// Bytes of its large instances that are going.
    leaving: AtomicU64,
}

#[derive(Debug)]
struct Ledger {
    bytes: u64,
    since: Instant,
    /// Byte-nanoseconds that do not yet make a whole byte-second.
    rest: u128,
}

impl MemoryAccount {
    pub(crate) fn new(limit: ByteSize, host: Arc<HostMemory>, meter: Arc<MeterCell>) -> Arc<Self> {
        let ledger = Mutex::new(Ledger { bytes: 0, since: Instant::now(), rest: 0 });
        Arc::new(Self { limit: limit.0, host, meter, ledger, leaving: AtomicU64::new(0) })
    }

    /// Takes bytes, or says whose limit that would exceed.
    pub(crate) fn hold(&self, bytes: u64) -> Result<(), Trap> {
        let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        if ledger.bytes.saturating_add(bytes) > self.limit {
            return Err(Trap::Memory { limit: ByteSize(self.limit) });
        }
        if !self.host.hold(bytes) {
            return Err(Trap::HostMemory);
        }
        self.accrue(&mut ledger);
        ledger.bytes += bytes;
        Ok(())
    }

    /// Waits until so many bytes are free, as long as the large instances that are going would make room for them.
    pub(crate) async fn room_from_leaving(&self, bytes: u64) {
        loop {
            let left = self.host.left.notified();
            if self.has_room(bytes, 0, 0) {
                return;
            }
            let (own, of_host) = (self.leaving.load(Relaxed), self.host.leaving.load(Relaxed));
            if !self.has_room(bytes, own, of_host) {
                return;
            }
            left.await;
        }
    }

    /// Whether so many bytes fit when some of its own, and of all that the host holds, are gone.
    fn has_room(&self, bytes: u64, own_gone: u64, host_gone: u64) -> bool {
        let held = self.ledger.lock().unwrap_or_else(PoisonError::into_inner).bytes;
        let of_host = self.host.used.load(Relaxed);
        held.saturating_sub(own_gone).saturating_add(bytes) <= self.limit
            && of_host.saturating_sub(host_gone).saturating_add(bytes) <= self.host.limit
    }

    /// Takes bytes. Idle instances are only a cache: where there is no room, they make it, unless whoever asks would
    /// hold more than the limit alone.
    pub(crate) fn hold_making_room(self: &Arc<Self>, bytes: u64, held_by_asker: u64) -> Result<(), Trap> {
        while let Err(denied) = self.hold(bytes) {
            if held_by_asker.saturating_add(bytes) > self.limit || !self.make_room(&denied) {
                return Err(denied);
            }
        }
        Ok(())
    }

    /// Drops one idle instance of this worker. False where none is left that would help.
    fn make_room(self: &Arc<Self>, denied: &Trap) -> bool {
        Local::current().is_some_and(|local| match denied {
            Trap::HostMemory => local.reclaim_one(),
            _ => local.reclaim_of(self),
        })
    }

    /// Most bytes that may be held.
    pub(crate) const fn limit(&self) -> ByteSize {
        ByteSize(self.limit)
    }

    /// Gives bytes back.
    pub(crate) fn release(&self, bytes: u64) {
        let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        self.accrue(&mut ledger);
        ledger.bytes -= bytes;
        self.host.release(bytes);
    }

    /// What is held now. The meter is brought up to date on the way.
    pub(crate) fn observe(&self) -> ByteSize {
        let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        self.accrue(&mut ledger);
        ByteSize(ledger.bytes)
    }

    fn accrue(&self, ledger: &mut Ledger) {
        const NANOS_PER_SECOND: u128 = 1_000_000_000;
        let now = Instant::now();
        let elapsed = now.duration_since(ledger.since).as_nanos();
        ledger.since = now;
        ledger.rest += elapsed * u128::from(ledger.bytes);
        let whole = u64::try_from(ledger.rest / NANOS_PER_SECOND).unwrap_or(u64::MAX);
        ledger.rest %= NANOS_PER_SECOND;
        if whole > 0 {
            self.meter.add_memory_byte_seconds(whole);
        }
    }
}

/// Binds one instance to its partition's account; gives everything back when the instance goes.
pub(crate) struct Limiter {
    account: Arc<MemoryAccount>,
    held: u64,
    denied: Option<Trap>,
    made: Instant,
    /// The request that runs, and until when it may take; what starts has none here.
    request: Option<(Arc<Progress>, Instant)>,
    dumps: Arc<DumpSlot>,
}

impl Limiter {
    pub(crate) fn new(account: Arc<MemoryAccount>) -> Self {
        let dumps = Arc::default();
        Self { account, held: 0, denied: None, made: Instant::now(), request: None, dumps }
    }

    /// The same, which also stops its guest where somebody waits here for its core dump.
    pub(crate) fn stopping_for(mut self, dumps: &Arc<DumpSlot>) -> Self {
        self.dumps = Arc::clone(dumps);
        self
    }

    /// Takes bytes that the host holds for the guest.
    pub(crate) fn hold(&mut self, bytes: u64) -> Result<(), Trap> {
        self.account.hold_making_room(bytes, self.held)?;
        self.held += bytes;
        Ok(())
    }

    /// What is held for the instance.
    pub(crate) const fn held(&self) -> u64 {
        self.held
    }

    /// The account that the instance's memory is in.
    pub(crate) const fn account(&self) -> &Arc<MemoryAccount> {
        &self.account
    }

    /// Counts bytes of state that the guest read.
    pub(crate) fn count_read(&self, bytes: u64) {
        self.account.meter.count_state(bytes, 0);
    }

    /// Counts fuel that the guest used.
    pub(crate) fn count_fuel(&self, fuel: u64) {
        self.account.meter.add_fuel(fuel);
    }

    /// Gives back what the host held for the guest.
    pub(crate) fn release(&mut self, bytes: u64) {
        if bytes == 0 {
            return;
        }
        self.account.release(bytes);
        self.held -= bytes;
    }

    /// The limit that the guest ran into last, which explains the trap that usually follows.
    pub(crate) fn denied(&self) -> Option<Trap> {
        self.denied.clone()
    }

    /// A request begins. Forgets [`denied`](Self::denied): a guest that could do without the memory goes on.
    pub(crate) fn begin_request(&mut self, progress: &Arc<Progress>, deadline: Instant) {
        self.denied = None;
        self.request = Some((Arc::clone(progress), deadline));
    }

    /// The request has ended.
    pub(crate) fn end_request(&mut self) {
        self.request = None;
    }

    /// The request that runs.
    pub(crate) fn progress(&self) -> Option<&Arc<Progress>> {
        self.request.as_ref().map(|(progress, _)| progress)
    }

    /// Whether somebody waits for a core dump, and the guest has run for so long that it is stopped for it.
    fn is_to_be_dumped(&self) -> bool {
        if !self.dumps.is_wanted() {
            return false;
        }
        let now = Instant::now();
        match &self.request {
            Some((progress, deadline)) => {
                let stop = stop_before(progress.began(), *deadline);
                self.dumps.is_due(progress.in_guest.time(now), now >= stop)
            }
            None => self.dumps.is_due(now.saturating_duration_since(self.made), false),
        }
    }

    fn grow(&mut self, bytes: u64, within_maximum: bool) -> bool {
        if !within_maximum {
            return false;
        }
        match self.hold(bytes) {
            Ok(()) => true,
            Err(denied) => {
                self.denied = Some(denied);
                false
            }
        }
    }
}

/// Bytes of the host that are held for a partition until this is dropped.
#[derive(Debug)]
pub(crate) struct Charge {
    account: Arc<MemoryAccount>,
    bytes: u64,
}

impl Charge {
    pub(crate) const fn none(account: Arc<MemoryAccount>) -> Self {
        Self { account, bytes: 0 }
    }

    /// Holds more.
    pub(crate) fn add(&mut self, bytes: u64) -> Result<(), Trap> {
        self.account.hold_making_room(bytes, self.bytes)?;
        self.bytes += bytes;
        Ok(())
    }

    /// The same bytes, held until their last copy is dropped.
    pub(crate) fn keep(self, bytes: Bytes) -> Bytes {
        if self.bytes == 0 { bytes } else { Bytes::from_owner(Charged { bytes, _charge: self }) }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.account.release(self.bytes);
    }
}

/// Bytes with their charge.
struct Charged {
    bytes: Bytes,
    _charge: Charge,
}

impl AsRef<[u8]> for Charged {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

// Nothing is given back where wasmtime says that a growth failed: it says so also for growths that it never asked
// about (a 64-bit table beyond all numbers), and a guest could have its last true growth taken off its bill that
// way. What exceeds the maximum is refused here, so what fails after this agreed is the operating system's refusal;
// its bytes are held until the instance goes.

#[async_trait::async_trait]
impl ResourceLimiterAsync for Limiter {
    async fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let (bytes, fits) = ((desired - current) as u64, maximum.is_none_or(|maximum| desired <= maximum));
        if fits {
            self.account.room_from_leaving(bytes).await;
        }
        Ok(self.grow(bytes, fits))
    }

    /// Also the place where a running guest gives way: see [`crate::interrupt`].
    async fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if desired - current == TICK_GROWTH as usize {
            // At its deadline a call is dropped, and nothing is left to be seen of where it was: a trap comes before.
            if self.is_to_be_dumped() {
                return Err(Trap::Dumped.into());
            }
            give_way_in_time().await;
            return Ok(false);
        }
        let bytes = (desired - current) as u64 * TABLE_ELEMENT_BYTES;
        Ok(self.grow(bytes, maximum.is_none_or(|maximum| desired <= maximum)))
    }

    fn instances(&self) -> usize {
        MAX_CORE_INSTANCES
    }

    fn tables(&self) -> usize {
        MAX_TABLES as usize
    }

    fn memories(&self) -> usize {
        MAX_MEMORIES as usize
    }
}

impl Drop for Limiter {
    fn drop(&mut self) {
        self.account.release(self.held);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(limit: u64, host: u64) -> (Arc<MemoryAccount>, Arc<HostMemory>) {
        let host = HostMemory::new(ByteSize(host));
        (MemoryAccount::new(ByteSize(limit), Arc::clone(&host), Arc::default()), host)
    }

    #[tokio::test]
    async fn instances_of_a_partition_share_its_limit_and_give_back_what_they_held() {
        let (account, host) = account(100, 1000);
        let mut first = Limiter::new(Arc::clone(&account));
        let mut second = Limiter::new(Arc::clone(&account));
        assert!(first.memory_growing(0, 60, None).await.expect("no error"));
        assert!(!second.memory_growing(0, 60, None).await.expect("no error"));
        assert_eq!(second.denied(), Some(Trap::Memory { limit: ByteSize(100) }));
        drop(first);
        assert!(second.memory_growing(0, 60, None).await.expect("no error"));
        assert_eq!(account.observe(), ByteSize(60));
        drop(second);
        assert_eq!(host.used.load(Relaxed), 0);
    }

    #[tokio::test]
    async fn a_tick_is_no_growth() {
        let (account, _host) = account(100, 1000);
        let mut limiter = Limiter::new(Arc::clone(&account));
        let grown = limiter.table_growing(7, 7 + TICK_GROWTH as usize, Some(9)).await;
        assert!(!grown.expect("no error"));
        assert_eq!((limiter.denied(), account.observe()), (None, ByteSize(0)));
    }

    /// A module with one page of memory, a 64-bit table and an exported function `f`, which grows the memory by 16
    /// pages and then the table by more than there are numbers.
    const GROWS: &[u8] = b"\0asm\x01\0\0\0\
        \x01\x04\x01\x60\0\0\
        \x03\x02\x01\0\
        \x04\x04\x01\x70\x04\x01\
        \x05\x03\x01\0\x01\
        \x07\x05\x01\x01f\0\0\
        \x0a\x11\x01\x0f\0\
        \x41\x10\x40\0\x1a\
        \xd0\x70\x42\x7f\xfc\x0f\0\x1a\
        \x0b";

    #[tokio::test]
    async fn a_growth_that_was_never_asked_for_takes_nothing_off_the_bill() {
        const PAGE: u64 = 64 << 10;
        let engine = wasmtime::Engine::default();
        let module = wasmtime::Module::new(&engine, GROWS).expect("a valid module");
        let (account, _host) = account(1 << 30, 1 << 30);
        let mut store = wasmtime::Store::new(&engine, Limiter::new(Arc::clone(&account)));
        store.limiter_async(|limiter| limiter);
        let instance = wasmtime::Instance::new_async(&mut store, &module, &[]).await.expect("it starts");
        let grow = instance.get_typed_func::<(), ()>(&mut store, "f").expect("it is exported");
        for times in 1..=3 {
            grow.call_async(&mut store, ()).await.expect("it returns");
            assert_eq!(account.observe(), ByteSize((1 + 16 * times) * PAGE + TABLE_ELEMENT_BYTES));
        }
    }

    #[test]
    fn the_host_has_a_limit_of_its_own() {
        let (account, _host) = account(100, 50);
        assert_eq!(account.hold(60), Err(Trap::HostMemory));
        assert_eq!(account.hold(50), Ok(()));
        account.release(50);
    }
}
