//! The process that compiles one component, seen from itself: it takes away its own rights and bounds itself,
//! reads the component, writes the code, ends.
//!
//! The order matters: what could be hostile is read last.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::process::ExitCode;

use rustix::process::{DumpableBehavior, Resource, Rlimit, Signal};

use super::code::code_of;
use super::order::Order;

/// The component was refused, for the reason on standard error.
pub(super) const REFUSED: u8 = 3;
/// The process could not do its work, for the reason on standard error.
const FAILED: u8 = 4;
/// Beside the memory that is written to: the program itself, and what is reserved and never used.
const RESERVED_BYTES: u64 = 1 << 30;
/// Serving goes first where both want a core.
const NICE: i32 = 10;
/// Processor time between being asked to end and being ended.
const CPU_GRACE_SECONDS: u64 = 2;

/// What the process that compiles does: reads a component from standard input, writes its code to standard output.
/// `order` is the argument that the HVM appended to the command line. See [`crate::CompileChild`].
#[must_use]
pub fn compile_child(order: &str) -> ExitCode {
    let (code, reason) = match compile(order) {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Refused(reason)) => (REFUSED, reason),
        Err(Failure::Failed(reason)) => (FAILED, reason),
    };
    // Whoever does not read it learns from the exit code.
    let _ = io::stderr().write_all(reason.as_bytes());
    ExitCode::from(code)
}

enum Failure {
    Refused(String),
    Failed(String),
}

fn compile(order: &str) -> Result<(), Failure> {
    let order: Order = order.parse().map_err(Failure::Failed)?;
    confine(&order).map_err(|error| Failure::Failed(format!("it can't confine itself: {error}")))?;
    let failed = |error: io::Error| Failure::Failed(error.to_string());
    let mut component = Vec::new();
    io::stdin().read_to_end(&mut component).map_err(failed)?;
    let engine = crate::engine::for_compiling(order.metering(), order.threads > 1)
        .map_err(|error| Failure::Failed(format!("{error:#}")))?;
    let code = code_of(&engine, &component).map_err(Failure::Refused)?;
    let mut out = io::stdout();
    out.write_all(&code).and_then(|()| out.flush()).map_err(failed)
}

fn confine(order: &Order) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let parent = rustix::process::getppid().map(rustix::process::Pid::as_raw_nonzero);
    if parent.and_then(|parent| u64::try_from(parent.get()).ok()) != Some(order.parent) {
        return Err(io::Error::other("whoever started it is gone"));
    }
    rustix::thread::set_no_new_privs(true)?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    rustix::process::nice(NICE)?;
    // Where the host runs out of memory, this process goes first. Not every system lets it say so.
    let _ = fs::write("/proc/self/oom_score_adj", "1000");
    limit(Resource::Core, 0, 0)?;
    limit(Resource::Data, order.memory_bytes, order.memory_bytes)?;
    let address_space = order.memory_bytes.saturating_add(RESERVED_BYTES);
    limit(Resource::As, address_space, address_space)?;
    limit(Resource::Cpu, order.cpu_seconds, order.cpu_seconds.saturating_add(CPU_GRACE_SECONDS))?;
    limit(Resource::Fsize, order.code_bytes, order.code_bytes)?;
    // Nothing is opened any more: no file, no socket.
    limit(Resource::Nofile, 3, 3)
}

fn limit(resource: Resource, current: u64, maximum: u64) -> io::Result<()> {
    let before = rustix::process::getrlimit(resource);
    let within = |wanted: u64| Some(before.maximum.map_or(wanted, |maximum| wanted.min(maximum)));
    Ok(rustix::process::setrlimit(resource, Rlimit { current: within(current), maximum: within(maximum) })?)
}
