//! The compilers of an HVM: one for each way of metering. What one compiles, the other never loads: each has an engine,
//! a linker and a name for its code of its own. They share how many components are compiled at a time.
//!
//! The one for deterministic metering is made when it is first asked for, as most hosts never do.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use hvm_types::{Digest, Metering};
use tokio::sync::Semaphore;
use wasmtime::Engine;

use super::Module;
use super::cache::CodeCache;
use super::compile::{CHILDREN, Compiler, MAX_WAITING};
use super::parent::Children;
use super::turns::Turns;
use crate::blocks::{RestLinker, first_block};
use crate::{CompileChildren, CompileError, Compiling, HvmConfig, StartError};

/// What bounds all compilers of a host together.
pub(super) struct Bounds {
    /// Components that are checked, loaded or waiting to be compiled.
    pub(super) waiting: Arc<Semaphore>,
    /// Components that are compiled.
    pub(super) turns: Turns,
    /// Processes that compiled.
    pub(super) children: Children,
}

/// The compilers of an HVM.
pub(crate) struct Compilers {
    config: HvmConfig,
    deterministic_rest: RestLinker,
    bounds: Arc<Bounds>,
    time: Arc<Compiler>,
    /// Or why it can't be made.
    deterministic: OnceLock<Result<Arc<Compiler>, String>>,
}

impl Compilers {
    /// What they compile runs in the first block of their pools, and in the second where that is linked.
    pub(crate) fn new(
        config: &HvmConfig,
        rest_linkers: [RestLinker; Metering::ALL.len()],
    ) -> Result<Self, StartError> {
        let [time_rest, deterministic_rest] = rest_linkers;
        let turns = match config.compiling {
            // The compiler itself uses all cores, so one component at a time is enough.
            Compiling::InProcess => 1,
            Compiling::Child(_) => CHILDREN,
        };
        let waiting = Arc::new(Semaphore::new(MAX_WAITING));
        let bounds = Arc::new(Bounds { waiting, turns: Turns::new(turns), children: Children::default() });
        let time = compiler(Metering::Time, config, time_rest, &bounds)?;
        let (config, deterministic) = (config.clone(), OnceLock::new());
        Ok(Self { config, deterministic_rest, bounds, time, deterministic })
    }

    /// Makes a module, from the cache where its code is there.
    pub(crate) async fn compile(&self, metering: Metering, component: Bytes) -> Result<Module, CompileError> {
        let compiler = match metering {
            Metering::Time => &self.time,
            Metering::Deterministic => self.deterministic().as_ref().map_err(|reason| {
                CompileError::NoEngine { digest: Digest::of(&component), reason: reason.clone() }
            })?,
        };
        Arc::clone(compiler).compile(component).await
    }

    /// Whether code of this engine runs here.
    pub(crate) fn has(&self, metering: Metering, engine: &Engine) -> bool {
        let own = match metering {
            Metering::Time => Some(&self.time),
            Metering::Deterministic => self.deterministic.get().and_then(|made| made.as_ref().ok()),
        };
        own.is_some_and(|own| Engine::same(own.engine(), engine))
    }

    /// The processes that compiled and have ended.
    pub(crate) fn children(&self) -> CompileChildren {
        self.bounds.children.read()
    }

    fn deterministic(&self) -> &Result<Arc<Compiler>, String> {
        self.deterministic.get_or_init(|| {
            let rest = RestLinker::clone(&self.deterministic_rest);
            let made = compiler(Metering::Deterministic, &self.config, rest, &self.bounds);
            made.map_err(|error| error.to_string())
        })
    }
}

fn compiler(
    metering: Metering,
    config: &HvmConfig,
    rest_linker: RestLinker,
    bounds: &Arc<Bounds>,
) -> Result<Arc<Compiler>, StartError> {
    let instances = config.instances(metering);
    let engine = crate::engine::build(metering, first_block(instances))?;
    let cache = CodeCache::open(&config.code_cache, config.code_cache_size, &engine)?;
    let linker = crate::guest::linker(&engine)
        .map_err(|error| StartError::Engine { instances, reason: format!("{error:#}") })?;
    Ok(Arc::new(Compiler::new(metering, linker, rest_linker, cache, config, Arc::clone(bounds))))
}
