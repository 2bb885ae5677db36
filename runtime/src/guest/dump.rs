//! What becomes of an instance whose guest was stopped: it is dropped, and where somebody asked, it is dumped before.
//!
//! A dump is made on a thread of its own, because it reads the whole memory. The instance keeps its place in the pool
//! until then. Who asks, and how many dumps are made at a time, is `core_dump`'s.

use hvm_types::{ByteSize, ReplicaId};
use tokio::sync::OwnedSemaphorePermit;
use wasm_encoder::{CustomSection, Section as _};
use wasmtime::{WasmBacktrace, WasmCoreDump};

use super::fuel::FuelStore;
use super::{Instance, InstanceHandle};
use crate::core_dump::{DumpOrder, MAX_DUMPED_MEMORY};
use crate::{CoreDump, CoreDumpError, LogLevel, Trap};

/// Name of the section with what the format has no place for.
const STOPPED_SECTION: &str = "hvm-stopped";
/// Most frames that are told. wasmtime itself captures 20.
const MAX_FRAMES: usize = 16;
/// Longest frame in bytes: names of generic functions have no end.
const MAX_FRAME_BYTES: usize = 300;

/// A dump that was asked for, of a guest that was stopped.
pub(super) struct PendingDump {
    order: DumpOrder,
    core: WasmCoreDump,
    request: String,
    trap: Trap,
    frames: Vec<String>,
}

/// What stopped a guest, after its log has been told, and after it was looked whether somebody asked for a dump.
pub(super) fn stopped(store: &mut FuelStore, error: wasmtime::Error) -> Trap {
    store.stopped_by(&error);
    let trap = Trap::of(&error, store.data());
    let trace = error.downcast_ref::<WasmBacktrace>();
    let lines = trace.map_or(0, |trace| 1 + trace.frames().len().min(MAX_FRAMES));
    let state = store.data_mut();
    let frames = match trace {
        Some(trace) if state.dumps.is_wanted() || state.log_has_room(lines) => frames(trace),
        _ => Vec::new(),
    };
    let request = state.limiter.progress().map_or_else(|| "its start".to_owned(), ToString::to_string);
    state.log_trap(&request, &trap, &frames);
    // An error without them is the host's, and there is no guest to look at.
    if error.is::<WasmCoreDump>()
        && let Some(order) = state.dumps.take()
        && let Ok(core) = error.downcast()
    {
        state.pending_dump = Some(Box::new(PendingDump { order, core, request, trap: trap.clone(), frames }));
    }
    trap
}

/// Where a guest was stopped: the innermost function first, by the names that its component holds.
fn frames(trace: &WasmBacktrace) -> Vec<String> {
    // The first line of it says that it is one.
    trace
        .to_string()
        .lines()
        .skip(1)
        .take(MAX_FRAMES)
        .map(|frame| frame[..frame.floor_char_boundary(MAX_FRAME_BYTES)].to_owned())
        .collect()
}

/// Drops an instance that serves no more.
pub(crate) fn discard(handle: InstanceHandle) {
    if handle.store.data().pending_dump.is_some()
        && let Some(instance) = handle.into_inner()
    {
        let leaves = instance.leaves();
        let Instance { store, _counted: counted, _place: place, .. } = *instance;
        discard_store(store, (counted, place, leaves));
    }
}

/// Drops the store of an instance, and then what is held for it.
pub(super) fn discard_store(mut store: FuelStore, held: impl Send + 'static) {
    let Some(pending) = store.data_mut().pending_dump.take() else {
        drop(store);
        return drop(held);
    };
    let thread = std::thread::Builder::new().name("hvm-core-dump".to_owned());
    let dumping = move || {
        pending.make(&mut store);
        drop(store);
        drop(held);
    };
    if let Err(error) = thread.spawn(dumping) {
        // Whoever asked is told that there is none.
        tracing::warn!(%error, "no thread could be started for a core dump");
    }
}

impl PendingDump {
    /// Makes the dump and gives it to who asked.
    fn make(self, store: &mut FuelStore) {
        let Self { order: DumpOrder { reply, dumping }, core, request, trap, frames } = self;
        if reply.is_closed() {
            return;
        }
        let log = store.data().log();
        let id = log.id().clone();
        let memory: u64 = core.memories().iter().map(|memory| memory.data_size(&**store) as u64).sum();
        let made = if memory > MAX_DUMPED_MEMORY.0 {
            let (memory, limit) = (ByteSize(memory), MAX_DUMPED_MEMORY);
            Err(CoreDumpError::TooLarge { id, trap, memory, limit })
        } else {
            let mut bytes = core.serialize(&mut **store, &id.to_string());
            let stopped = told(&id, &request, &trap, &frames);
            let name = STOPPED_SECTION.into();
            CustomSection { name, data: stopped.as_bytes().into() }.append_to(&mut bytes);
            Ok(CoreDump { id, request: request.clone(), trap, frames, bytes })
        };
        match &made {
            Ok(dump) => {
                let bytes = dump.bytes.len();
                let text = format!(
                    "{request}: a core dump of {bytes} bytes, with the guest's memory, goes to who asked for it"
                );
                log.host(LogLevel::Warn, &text);
            }
            Err(error) => log.host(LogLevel::Warn, &format!("{request}: no core dump: {error}")),
        }
        // Before the answer: who has it may ask for the next at once.
        drop::<OwnedSemaphorePermit>(dumping);
        // Whoever asked may have gone: then it is dropped.
        drop(reply.send(made));
    }
}

fn told(id: &ReplicaId, request: &str, trap: &Trap, frames: &[String]) -> String {
    let mut text = format!("partition {id}\n{request}\nstopped at: {trap}\n");
    for frame in frames {
        text.push_str(frame);
        text.push('\n');
    }
    text
}
