//! The host's side of one instance: what its calls to the host find.

use std::sync::Arc;

use hvm_types::ByteSize;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use super::dump::PendingDump;
use super::handles::Handles;
use super::unsent::Unsent;
use super::{Outgoing, OutgoingPolicy};
use crate::capability::{
    Config, ConfigView, Effects, GuestOutput, Keyvalue, KeyvalueView, LoggingView, PartitionLog,
};
use crate::core_dump::DumpSlot;
use crate::memory::{Limiter, MemoryAccount};
use crate::{LogLevel, Trap};

/// Most handles of host resources that an instance may hold.
pub(crate) const MAX_RESOURCES: usize = 1_000;
/// An instance that holds more than this after a request is not used again: it leaks.
const MAX_KEPT_RESOURCES: usize = 256;
/// Most random bytes in one call.
const MAX_RANDOM_BYTES: u64 = 256 << 10;
/// Most bytes of header fields in one collection, in memory.
const MAX_FIELD_BYTES: usize = 32 << 10;

/// The host's side of one instance.
pub(crate) struct GuestState {
    table: ResourceTable,
    wasi: WasiCtx,
    http: WasiHttpCtx,
    pub(crate) outgoing: Outgoing,
    pub(crate) limiter: Limiter,
    pub(crate) keyvalue: Keyvalue,
    pub(super) unsent: Arc<Unsent>,
    handles: Handles,
    config: Config,
    log: Arc<PartitionLog>,
    pub(super) dumps: Arc<DumpSlot>,
    /// What its dump needs, once its guest was stopped and somebody asked.
    pub(super) pending_dump: Option<Box<PendingDump>>,
}

/// What the instances of one partition have in common.
#[derive(Clone)]
pub(crate) struct GuestSettings {
    pub(crate) env: Arc<hvm_types::Environment>,
    pub(crate) config_granted: bool,
    pub(crate) stores: Arc<[String]>,
    pub(crate) state: Option<Arc<dyn crate::state::PartitionState>>,
    pub(crate) outgoing: Arc<OutgoingPolicy>,
    pub(crate) memory: Arc<MemoryAccount>,
    /// Longest answer to a typed call.
    pub(crate) answer_limit: ByteSize,
    pub(crate) log: Arc<PartitionLog>,
    pub(crate) dumps: Arc<DumpSlot>,
}

impl GuestState {
    /// The host's side of a new instance: the deployment's environment, output to the log, and nothing else
    /// of WASI: no arguments, no files, no sockets, closed input.
    pub(crate) fn new(settings: &GuestSettings) -> Result<Self, Trap> {
        let mut wasi = WasiCtx::builder();
        wasi.stdout(GuestOutput::stdout(&settings.log))
            .stderr(GuestOutput::stderr(&settings.log))
            .allow_tcp(false)
            .allow_udp(false)
            .allow_ip_name_lookup(false)
            .max_random_size(MAX_RANDOM_BYTES);
        for (name, value) in settings.env.iter() {
            wasi.env(name, value);
        }
        let mut http = WasiHttpCtx::new();
        http.set_field_size_limit(MAX_FIELD_BYTES);
        let mut table = ResourceTable::new();
        table.set_max_capacity(MAX_RESOURCES);
        let mut limiter = Limiter::new(Arc::clone(&settings.memory)).stopping_for(&settings.dumps);
        Ok(Self {
            table,
            wasi: wasi.build(),
            http,
            outgoing: Outgoing::new(Arc::clone(&settings.outgoing)),
            unsent: Unsent::new(&settings.memory)?,
            handles: Handles::new(&mut limiter)?,
            limiter,
            keyvalue: Keyvalue::new(Arc::clone(&settings.stores), settings.state.clone()),
            config: Config(settings.config_granted.then(|| Arc::clone(&settings.env))),
            log: Arc::clone(&settings.log),
            dumps: Arc::clone(&settings.dumps),
            pending_dump: None,
        })
    }

    /// Takes note that the host keeps a text of this length for the guest.
    pub(super) fn note(&mut self, bytes: usize) -> Result<(), Trap> {
        self.handles.note(bytes as u64, &mut self.table, &mut self.limiter)
    }

    /// The same of header fields.
    pub(super) fn note_fields(&mut self, fields: usize, bytes: usize) -> Result<(), Trap> {
        self.handles.note_fields(fields, bytes, &mut self.table, &mut self.limiter)
    }

    /// A request has ended, well or not; returns what it did to the state.
    pub(super) fn end(&mut self) -> Effects {
        self.outgoing.end();
        self.limiter.end_request();
        self.handles.end(&mut self.table, &mut self.limiter);
        self.keyvalue.end(&mut self.limiter)
    }

    pub(crate) fn keyvalue(&mut self) -> KeyvalueView<'_> {
        self.outgoing.shows(self.limiter.progress());
        KeyvalueView {
            keyvalue: &mut self.keyvalue,
            table: &mut self.table,
            limiter: &mut self.limiter,
            progress: self.outgoing.progress(),
        }
    }

    pub(crate) fn config(&mut self) -> ConfigView<'_> {
        ConfigView(&self.config)
    }

    pub(crate) fn logging(&mut self) -> LoggingView<'_> {
        LoggingView(&self.log)
    }

    pub(super) fn log(&self) -> Arc<PartitionLog> {
        Arc::clone(&self.log)
    }

    /// Whether the partition's log takes so many lines now. A guest that traps all the time is not to cost its host a
    /// text each time.
    pub(super) fn log_has_room(&self, lines: usize) -> bool {
        self.log.has_room(lines as u64, std::time::Instant::now())
    }

    /// Tells the partition's log in which request and where the guest was stopped.
    pub(super) fn log_trap(&self, request: &str, trap: &Trap, frames: &[String]) {
        if frames.is_empty() {
            return;
        }
        self.log.host(LogLevel::Error, &format!("{request} stopped at: {trap}"));
        for frame in frames {
            self.log.host(LogLevel::Error, &format!("{request} {frame}"));
        }
    }

    /// Whether so few resources were left behind that the instance can serve on.
    pub(crate) fn is_reusable(&mut self) -> bool {
        self.table.iter_mut().nth(MAX_KEPT_RESOURCES).is_none()
    }
}

impl WasiView for GuestState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for GuestState {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        self.outgoing.shows(self.limiter.progress());
        WasiHttpCtxView { ctx: &mut self.http, table: &mut self.table, hooks: &mut self.outgoing }
    }
}
