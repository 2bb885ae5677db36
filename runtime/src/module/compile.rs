//! Compiling, bounded: one component at a time, on a thread of its own, while code from the cache is loaded
//! beside it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;

use bytes::Bytes;
use hvm_types::{ByteSize, Digest};
use tokio::sync::{Semaphore, oneshot};
use wasmtime::Engine;
use wasmtime::component::{Component, Linker};
use wasmtime_wasi_http::p2::bindings::ProxyIndices;

use super::compiled::Compiled;
use super::imports::{self, Interface};
use super::{CodeCache, Module};
use crate::CompileError;
use crate::engine::{MEMORIES_PER_PERMIT, TABLE_ELEMENTS, TABLES_PER_PERMIT, max_memory};
use crate::guest::{GuestState, TypedIndices};
use crate::interrupt::interruptible;
use crate::memory::{MAX_MEMORIES, MAX_TABLES};

/// Components that are checked, loaded or waiting to be compiled at the same time.
const MAX_WAITING: usize = 64;

/// Makes modules of components.
pub(crate) struct Compiler {
    engine: Engine,
    linker: Linker<GuestState>,
    cache: CodeCache,
    max_component: ByteSize,
    waiting: Semaphore,
    /// The compiler itself uses all cores, so one component at a time is enough.
    compiling: Mutex<()>,
    /// Modules that are in use: asking again for one of them costs nothing.
    live: Mutex<HashMap<Digest, Weak<Compiled>>>,
}

impl Compiler {
    pub(crate) fn new(
        engine: Engine,
        linker: Linker<GuestState>,
        cache: CodeCache,
        max_component: ByteSize,
    ) -> Self {
        Self {
            engine,
            linker,
            cache,
            max_component,
            waiting: Semaphore::new(MAX_WAITING),
            compiling: Mutex::new(()),
            live: Mutex::default(),
        }
    }

    /// Makes a module, from the cache where it is there.
    pub(crate) async fn compile(self: Arc<Self>, component: Bytes) -> Result<Module, CompileError> {
        let (sender, receiver) = oneshot::channel();
        let size = ByteSize(component.len() as u64);
        let stopped = || CompileError::Stopped { digest: Digest::of(&component) };
        if size > self.max_component {
            let digest = Digest::of(&component);
            return Err(CompileError::TooLarge { digest, size, limit: self.max_component });
        }
        let _waiting = self.waiting.acquire().await.map_err(|_| stopped())?;
        let (this, bytes) = (Arc::clone(&self), component.clone());
        thread::Builder::new()
            .name("hvm-compile".to_owned())
            .spawn(move || drop(sender.send(this.compile_here(&bytes))))
            .map_err(|error| CompileError::Refused {
                digest: Digest::of(&component),
                reason: format!("no thread for it: {error}"),
            })?;
        receiver.await.unwrap_or_else(|_| {
            Err(CompileError::Refused {
                digest: Digest::of(&component),
                reason: "the compiler failed on it".to_owned(),
            })
        })
    }

    fn compile_here(&self, bytes: &[u8]) -> Result<Module, CompileError> {
        let digest = Digest::of(bytes);
        if let Some(module) = self.live(digest) {
            return Ok(module);
        }
        let interface = imports::check(digest, bytes)?;
        if let Some(component) = self.load(digest) {
            return self.finish(digest, interface, &component);
        }
        let _turn = self.compiling.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever had the turn before may have compiled the same.
        if let Some(module) = self.live(digest) {
            return Ok(module);
        }
        let refused = |error: wasmtime::Error| CompileError::Refused { digest, reason: format!("{error:#}") };
        let interruptible = interruptible(bytes)
            .map_err(|error| CompileError::Refused { digest, reason: error.to_string() })?;
        let component = Component::new(&self.engine, &interruptible).map_err(refused)?;
        match component.serialize() {
            Ok(code) => self.cache.store(digest, &code),
            Err(error) => tracing::warn!(%digest, %error, "compiled code can't be serialized"),
        }
        self.finish(digest, interface, &component)
    }

    fn live(&self, digest: Digest) -> Option<Module> {
        let live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        live.get(&digest).and_then(Weak::upgrade).map(Module)
    }

    fn load(&self, digest: Digest) -> Option<Component> {
        let code = self.cache.load(digest)?;
        // SAFETY: the bytes were written by `CodeCache::store` of this program, from `Component::serialize`:
        // the cache's directory is open to this user alone, the file belongs to this user and its content
        // matches the digest written with it. Code of another version or profile is refused by wasmtime.
        #[allow(unsafe_code, reason = "loading code that this program compiled itself")]
        let component = unsafe { Component::deserialize(&self.engine, &code) };
        component
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
        let pre = self.linker.instantiate_pre(component).map_err(refused)?;
        let Interface { required, http, typed } = interface;
        let http = http.then(|| ProxyIndices::new(&pre)).transpose().map_err(refused)?;
        let typed = typed.then(|| TypedIndices::new(&pre)).transpose().map_err(refused)?;
        let compiled = Arc::new(Compiled { digest, required, pre, http, typed, permits });
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
