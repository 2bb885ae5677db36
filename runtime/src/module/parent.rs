//! The process that compiles one component, seen from its parent: started with nothing, watched, killed where it
//! takes too long or nobody wants its code any more, always reaped.
//!
//! Component and code go through files in memory that have no name and that only these two processes have.

use std::fs::File;
use std::io::{self, PipeReader, Read as _, Seek as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use hvm_types::{Digest, Metering};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};

use super::child::REFUSED;
use super::child_cpu::cpu_of_ended;
use super::order::Order;
use crate::{CompileChild, CompileChildren, CompileError};

/// Longest reason that is taken from a compiling process.
const REASON_BYTES: u64 = 2 << 10;

/// Compiles a component in a process of its own. `cancelled` becomes readable, or loses its writer, when nobody
/// waits for the code any more.
pub(super) fn code_from_child(
    settings: &CompileChild,
    digest: Digest,
    component: &[u8],
    metering: Metering,
    cancelled: &PipeReader,
    children: &Children,
) -> Result<Vec<u8>, CompileError> {
    let failed = |error: io::Error| CompileError::Process { digest, reason: error.to_string() };
    let mut streams = Streams::new(component).map_err(failed)?;
    let running = Running::start(settings, &streams, metering).map_err(|error| {
        let reason = format!("{} can't be started: {error}", settings.program.display());
        CompileError::Process { digest, reason }
    })?;
    let watched = running.watch(settings.wall, cancelled);
    let status = running.end(children).map_err(failed)?;
    let reason = streams.reason();
    match watched.map_err(failed)? {
        Watched::Ended if status.success() => streams.code(settings, digest),
        Watched::Ended => Err(cause(settings, digest, status, reason)),
        Watched::TooLong => Err(CompileError::TimedOut { digest, limit: settings.wall }),
        Watched::Cancelled => Err(CompileError::Stopped { digest }),
    }
}

/// The three standard streams of the child, as files in memory.
struct Streams {
    component: File,
    code: File,
    reason: File,
}

impl Streams {
    fn new(bytes: &[u8]) -> io::Result<Self> {
        let file = |name: &str| io::Result::Ok(File::from(memfd_create(name, MemfdFlags::CLOEXEC)?));
        let mut component = file("hvm-component")?;
        component.write_all(bytes)?;
        component.rewind()?;
        Ok(Self { component, code: file("hvm-code")?, reason: file("hvm-reason")? })
    }

    fn code(&mut self, settings: &CompileChild, digest: Digest) -> Result<Vec<u8>, CompileError> {
        let failed = |error: io::Error| CompileError::Process { digest, reason: error.to_string() };
        let length = self.code.metadata().map_err(failed)?.len();
        if length > settings.code.0 {
            return Err(CompileError::CodeTooLarge { digest, limit: settings.code });
        }
        let mut code = Vec::with_capacity(usize::try_from(length).unwrap_or_default());
        self.code.rewind().and_then(|()| self.code.read_to_end(&mut code)).map_err(failed)?;
        Ok(code)
    }

    fn reason(&mut self) -> String {
        let mut text = Vec::new();
        let read =
            self.reason.rewind().and_then(|()| (&self.reason).take(REASON_BYTES).read_to_end(&mut text));
        match read {
            Ok(_) => String::from_utf8_lossy(&text).trim().to_owned(),
            Err(error) => error.to_string(),
        }
    }
}

/// All children that have ended.
#[derive(Debug, Default)]
pub(super) struct Children {
    ended: AtomicU64,
    cpu_nanos: AtomicU64,
}

impl Children {
    pub(super) fn read(&self) -> CompileChildren {
        let cpu = Duration::from_nanos(self.cpu_nanos.load(Relaxed));
        CompileChildren { ended: self.ended.load(Relaxed), cpu }
    }

    fn add(&self, cpu: Duration) {
        self.cpu_nanos.fetch_add(u64::try_from(cpu.as_nanos()).unwrap_or(u64::MAX), Relaxed);
        self.ended.fetch_add(1, Relaxed);
    }
}

/// A child that is killed and reaped when this goes.
struct Running(Child);

/// How a child was left.
enum Watched {
    Ended,
    TooLong,
    Cancelled,
}

impl Running {
    fn start(settings: &CompileChild, streams: &Streams, metering: Metering) -> io::Result<Self> {
        let threads = threads();
        let order = Order {
            memory_bytes: settings.memory.0,
            cpu_seconds: settings.cpu.as_secs().max(1),
            code_bytes: settings.code.0,
            threads,
            parent: u64::from(std::process::id()),
            fuel: u64::from(metering == Metering::Deterministic),
        };
        let child = Command::new(&settings.program)
            .arg0("hvm-compile-component")
            .args(&settings.arguments)
            .arg(order.to_string())
            .env_clear()
            .env("RAYON_NUM_THREADS", threads.to_string())
            .current_dir("/")
            .stdin(Stdio::from(streams.component.try_clone()?))
            .stdout(Stdio::from(streams.code.try_clone()?))
            .stderr(Stdio::from(streams.reason.try_clone()?))
            .spawn()?;
        Ok(Self(child))
    }

    fn watch(&self, limit: Duration, cancelled: &PipeReader) -> io::Result<Watched> {
        let pid = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| io::Error::other("its process number is out of range"))?;
        let ended = pidfd_open(pid, PidfdFlags::empty())?;
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Watched::TooLong);
            }
            let timeout = Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: i64::from(left.subsec_nanos()),
            };
            let mut both = [
                PollFd::new(&ended, PollFlags::IN),
                PollFd::from_borrowed_fd(cancelled.as_fd(), PollFlags::IN),
            ];
            match poll(&mut both, Some(&timeout)) {
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
                Ok(_) if !both[0].revents().is_empty() => return Ok(Watched::Ended),
                Ok(_) if !both[1].revents().is_empty() => return Ok(Watched::Cancelled),
                Ok(_) => {}
            }
        }
    }
}

impl Running {
    /// Ends it where it still runs, counts what it used, and reaps it.
    fn end(mut self, children: &Children) -> io::Result<ExitStatus> {
        self.0.kill()?;
        children.add(cpu_of_ended(&self.0)?);
        self.0.wait()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both do nothing to a child that was reaped.
        if let Err(error) = self.0.kill().and_then(|()| self.0.wait().map(drop)) {
            tracing::error!(%error, pid = self.0.id(), "a compiling process can't be ended");
        }
    }
}

/// Threads of one child. Two may run, and one core is for serving.
fn threads() -> u64 {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    (cores.saturating_sub(1) as u64 / super::compile::CHILDREN).max(1)
}

/// Why a child that ended has no code.
fn cause(settings: &CompileChild, digest: Digest, status: ExitStatus, reason: String) -> CompileError {
    let signal = status.signal();
    let is = |wanted: Signal| signal == Some(wanted.as_raw());
    let no_memory = reason.contains("memory allocation of") || reason.contains("Cannot allocate memory");
    if is(Signal::XCPU) {
        return CompileError::TooSlow { digest, limit: settings.cpu };
    }
    if is(Signal::XFSZ) {
        return CompileError::CodeTooLarge { digest, limit: settings.code };
    }
    if no_memory {
        return CompileError::NoMemory { digest, limit: settings.memory };
    }
    match (signal, status.code()) {
        (Some(signal), _) => CompileError::Crashed { digest, signal, reason },
        (None, Some(code)) if code == i32::from(REFUSED) => CompileError::Refused { digest, reason },
        (None, _) => CompileError::Process { digest, reason: format!("{status}: {reason}") },
    }
}
