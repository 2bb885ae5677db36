//! Compiling, bounded: once for all who want the same component at the same time, on threads of its own, while
//! code from the cache is loaded beside it.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::Instant;

use bytes::Bytes;
use hvm_types::{ByteSize, Digest, Metering};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use wasmtime::Engine;
use wasmtime::component::{Component, Linker};

use super::Module;
use super::cache::CodeCache;
use super::code::code_of;
use super::compiled::Compiled;
use super::compilers::Bounds;
use super::flight::{Flights, Outcome, Pilot};
use super::imports::{self, Interface};
use super::linked::{Linked, LinkedLater};
use super::parent::code_from_child;
use super::refused::Refused;
use crate::blocks::RestLinker;
use crate::engine::{MEMORIES_PER_PERMIT, TABLE_ELEMENTS, TABLES_PER_PERMIT, max_memory};
use crate::guest::GuestState;
use crate::memory::{MAX_MEMORIES, MAX_TABLES};
use crate::{CompileError, Compiling, HvmConfig};

/// Components that are checked, loaded or waiting to be compiled at the same time.
pub(super) const MAX_WAITING: usize = 64;
/// Child processes that compile at the same time: one that takes for ever holds up no other.
pub(super) const CHILDREN: u64 = 2;

/// Makes modules of components for one way of metering.
pub(super) struct Compiler {
    metering: Metering,
    linker: Linker<GuestState>,
    rest_linker: RestLinker,
    cache: CodeCache,
    max_component: ByteSize,
    compiling: Compiling,
    bounds: Arc<Bounds>,
    flights: Flights,
    refused: Refused,
    /// Modules that are in use: asking again for one of them costs nothing.
    live: Mutex<HashMap<Digest, Weak<Compiled>>>,
}

/// What is known of a component before it is compiled.
enum Found {
    /// It was compiled before.
    Module(Module),
    /// It has to be compiled.
    Missing { digest: Digest, interface: Interface },
}

impl Compiler {
    pub(super) fn new(
        metering: Metering,
        linker: Linker<GuestState>,
        rest_linker: RestLinker,
        cache: CodeCache,
        config: &HvmConfig,
        bounds: Arc<Bounds>,
    ) -> Self {
        Self {
            metering,
            linker,
            rest_linker,
            cache,
            max_component: config.max_component,
            compiling: config.compiling.clone(),
            bounds,
            flights: Flights::default(),
            refused: Refused::default(),
            live: Mutex::default(),
        }
    }

    /// The engine that its code runs in.
    pub(super) fn engine(&self) -> &Engine {
        self.linker.engine()
    }

    /// Makes a module, from the cache where it is there.
    pub(super) async fn compile(self: Arc<Self>, component: Bytes) -> Result<Module, CompileError> {
        let size = ByteSize(component.len() as u64);
        if size > self.max_component {
            let digest = Digest::of(&component);
            return Err(CompileError::TooLarge { digest, size, limit: self.max_component });
        }
        let no_thread = |error: io::Error| CompileError::Process {
            digest: Digest::of(&component),
            reason: format!("no thread for it: {error}"),
        };
        let broke_off = || CompileError::Process {
            digest: Digest::of(&component),
            reason: "it broke off; see the host's own log".to_owned(),
        };
        let stopped = |_| CompileError::Stopped { digest: Digest::of(&component) };
        let permit = Arc::clone(&self.bounds.waiting).acquire_owned().await.map_err(stopped)?;
        let (sender, receiver) = oneshot::channel();
        let (this, bytes) = (Arc::clone(&self), component.clone());
        let finding = thread::Builder::new().name("hvm-load".to_owned());
        finding.spawn(move || drop(sender.send(this.find(&bytes)))).map_err(no_thread)?;
        let (digest, interface) = match receiver.await.map_err(|_| broke_off())?? {
            Found::Module(module) => return Ok(module),
            Found::Missing { digest, interface } => (digest, interface),
        };
        let mut permit = Some(permit);
        let flight = self.flights.join(digest, |pilot| {
            Arc::clone(&self).begin(component.clone(), digest, interface, pilot, permit.take())
        });
        flight.map_err(no_thread)?.outcome().await.unwrap_or_else(|| Err(broke_off()))
    }

    fn find(&self, bytes: &[u8]) -> Result<Found, CompileError> {
        let digest = Digest::of(bytes);
        if let Some(module) = self.live(digest) {
            return Ok(Found::Module(module));
        }
        if let Some(error) = self.refused.get(digest, Instant::now()) {
            return Err(error);
        }
        let interface = imports::check(digest, bytes)?;
        match self.load(digest) {
            Some(component) => self.finish(digest, interface, &component).map(Found::Module),
            None => Ok(Found::Missing { digest, interface }),
        }
    }

    /// Compiles on a thread of its own. The thread keeps the permit: also who no longer waits is bounded.
    fn begin(
        self: Arc<Self>,
        component: Bytes,
        digest: Digest,
        interface: Interface,
        pilot: Pilot,
        permit: Option<OwnedSemaphorePermit>,
    ) -> io::Result<()> {
        let compiling = move || {
            let outcome = self.compile_here(&component, digest, interface, &pilot);
            if let Err(error) = &outcome {
                self.refused.note(digest, error, Instant::now());
            }
            pilot.ended.send_replace(Some(outcome));
            drop(permit);
        };
        thread::Builder::new().name("hvm-compile".to_owned()).spawn(compiling).map(drop)
    }

    fn compile_here(&self, bytes: &[u8], digest: Digest, interface: Interface, pilot: &Pilot) -> Outcome {
        let _turn = self.bounds.turns.take();
        // Whoever had a turn before may have compiled the same.
        if let Some(module) = self.live(digest) {
            return Ok(module);
        }
        let began = Instant::now();
        let code = match &self.compiling {
            Compiling::InProcess => {
                code_of(self.engine(), bytes).map_err(|reason| CompileError::Refused { digest, reason })?
            }
            Compiling::Child(child) => {
                let children = &self.bounds.children;
                code_from_child(child, digest, bytes, self.metering, &pilot.cancelled, children)?
            }
        };
        let component = self.deserialize(&code).map_err(|error| {
            let reason = format!("its code does not load: {error:#}");
            CompileError::Process { digest, reason }
        })?;
        self.cache.store(digest, &code);
        tracing::info!(%digest, took = ?began.elapsed(), code_bytes = code.len(), "compiled a component");
        self.finish(digest, interface, &component)
    }

    fn deserialize(&self, code: &[u8]) -> wasmtime::Result<Component> {
        // SAFETY: the bytes come from `Engine::precompile_component` of this program. Either it ran just now, in
        // this process or in the child that this process started for it, whose output nobody else can write to.
        // Or they were read by `CodeCache`, which wrote them: its directory is open to this user alone, the file
        // belongs to this user and its content matches the digest written with it. Code of another version or
        // profile is refused by wasmtime.
        #[allow(unsafe_code, reason = "loading code that this program compiled itself")]
        unsafe {
            Component::deserialize(self.engine(), code)
        }
    }

    fn live(&self, digest: Digest) -> Option<Module> {
        let live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        live.get(&digest).and_then(Weak::upgrade).map(Module)
    }

    fn load(&self, digest: Digest) -> Option<Component> {
        let code = self.cache.load(digest)?;
        self.deserialize(&code)
            .inspect_err(|error| {
                tracing::warn!(%digest, %error, "compiled code does not load: compiling it anew");
                self.cache.forget(digest);
            })
            .ok()
    }

    fn finish(
        &self,
        digest: Digest,
        interface: Interface,
        component: &Component,
    ) -> Result<Module, CompileError> {
        let refused = |error: wasmtime::Error| CompileError::Refused { digest, reason: format!("{error:#}") };
        let permits = permits(digest, component)?;
        let first = Linked::new(&self.linker, component, (&interface).into()).map_err(refused)?;
        let rest = LinkedLater::new(RestLinker::clone(&self.rest_linker));
        let Interface { required, longest_way, .. } = interface;
        let metering = self.metering;
        let compiled = Arc::new(Compiled { digest, required, first, rest, permits, metering, longest_way });
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        live.retain(|_, module| module.strong_count() > 0);
        live.insert(digest, Arc::downgrade(&compiled));
        Ok(Module(compiled))
    }
}

/// Slots of the pool that an instance takes, or why it fits none.
fn permits(digest: Digest, component: &Component) -> Result<u32, CompileError> {
    let does_not_fit = |what: String, limit: String| CompileError::DoesNotFit { digest, what, limit };
    let Some(needs) = component.resources_required() else {
        return Err(does_not_fit("core modules that it imports".to_owned(), "its own".to_owned()));
    };
    if needs.num_memories > MAX_MEMORIES {
        return Err(does_not_fit(format!("{} memories", needs.num_memories), MAX_MEMORIES.to_string()));
    }
    if needs.num_tables > MAX_TABLES {
        return Err(does_not_fit(format!("{} tables", needs.num_tables), MAX_TABLES.to_string()));
    }
    if needs.max_initial_memory_size.is_some_and(|bytes| bytes > max_memory().0) {
        return Err(does_not_fit("a larger memory".to_owned(), max_memory().to_string()));
    }
    if needs.max_initial_table_size.is_some_and(|elements| elements > TABLE_ELEMENTS as u64) {
        return Err(does_not_fit("a larger table".to_owned(), format!("{TABLE_ELEMENTS} elements")));
    }
    let memories = needs.num_memories.div_ceil(MEMORIES_PER_PERMIT);
    let tables = needs.num_tables.div_ceil(TABLES_PER_PERMIT);
    Ok(memories.max(tables).max(1))
}
