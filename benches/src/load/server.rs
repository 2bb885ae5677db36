//! A server under load: a process, what it and its children used, and its end.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::LoadError;
use super::client::Client;

/// Longest time from the start of a server to its first answer.
const START_LIMIT: Duration = Duration::from_secs(120);
/// Pause between two tries to reach a server that is starting.
const TRY_AGAIN: Duration = Duration::from_micros(200);
/// How long a server may take to stop before it is killed.
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// A running server. It is stopped when it goes out of scope.
pub(crate) struct Server {
    child: Child,
    began: Instant,
    log: PathBuf,
    pub(crate) address: SocketAddr,
    /// From the start of the process to the end of its first answer.
    pub(crate) cold_start: Duration,
    /// Its first answer as it came.
    pub(crate) answer: Vec<u8>,
}

impl Server {
    /// Starts a process that will answer at `address`.
    pub(crate) fn spawn(mut command: Command, address: SocketAddr, log: &Path) -> Result<Self, LoadError> {
        let file = fs::File::create(log).map_err(LoadError::io(format!("create {}", log.display())))?;
        let errors = file.try_clone().map_err(LoadError::io("share the log"))?;
        let program = command.get_program().to_string_lossy().into_owned();
        // With it, wasmtime takes a backtrace for each of its errors.
        command.env_remove("RUST_BACKTRACE").env_remove("RUST_LOG");
        command.stdin(Stdio::null()).stdout(file).stderr(errors);
        let began = Instant::now();
        let child = command.spawn().map_err(LoadError::io(format!("start {program}")))?;
        Ok(Self {
            child,
            began,
            address,
            log: log.to_owned(),
            cold_start: Duration::ZERO,
            answer: Vec::new(),
        })
    }

    /// Waits until it answers.
    pub(crate) fn wait_for_first_answer(&mut self) -> Result<(), LoadError> {
        let until = Instant::now() + START_LIMIT;
        loop {
            if let Ok(mut client) = Client::connect(self.address)
                && let Ok(200) = client.ask(0)
            {
                self.cold_start = self.began.elapsed();
                self.answer = client.answer().to_owned();
                return Ok(());
            }
            self.check_alive()?;
            if Instant::now() > until {
                return Err(LoadError::new(format!("no answer; its log is {}", self.log.display())));
            }
            thread::sleep(TRY_AGAIN);
        }
    }

    /// An error where the process has ended.
    pub(crate) fn check_alive(&mut self) -> Result<(), LoadError> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            _ => Err(LoadError::new(format!("the server has ended; its log is {}", self.log.display()))),
        }
    }

    /// Processor time of the process and all that it started, until now.
    pub(crate) fn cpu(&self) -> Result<Duration, LoadError> {
        let ticks: u64 = self.tree()?.values().map(|process| process.cpu_ticks).sum();
        let per_second = rustix::param::clock_ticks_per_second();
        Ok(Duration::from_secs_f64(float(ticks) / float(per_second)))
    }

    /// Resident memory of the process and its children, in bytes.
    pub(crate) fn resident(&self) -> Result<u64, LoadError> {
        let pages: u64 = self.tree()?.values().map(|process| process.resident_pages).sum();
        Ok(pages * rustix::param::page_size() as u64)
    }

    fn tree(&self) -> Result<BTreeMap<u32, Process>, LoadError> {
        let mut all: BTreeMap<u32, Process> = BTreeMap::new();
        for entry in fs::read_dir("/proc").map_err(LoadError::io("read /proc"))?.flatten() {
            let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            // A process may go while it is looked at.
            let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
            all.extend(Process::parse(&stat).map(|process| (id, process)));
        }
        let mut tree = BTreeMap::new();
        let mut found = vec![self.child.id()];
        while let Some(id) = found.pop() {
            found.extend(all.iter().filter(|(_, process)| process.parent == id).map(|(id, _)| *id));
            tree.extend(all.remove(&id).map(|process| (id, process)));
        }
        match tree.is_empty() {
            true => Err(LoadError::new("the server has ended")),
            false => Ok(tree),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let asked = pid.is_some_and(|pid| kill_process(pid, Signal::TERM).is_ok());
        let until = Instant::now() + STOP_LIMIT;
        while asked && Instant::now() < until {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
        // What does not end within its time is ended; it may have done so just now.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A line of `/proc/PID/stat` (proc(5)).
#[derive(Debug, PartialEq, Eq)]
struct Process {
    parent: u32,
    cpu_ticks: u64,
    resident_pages: u64,
}

impl Process {
    fn parse(stat: &str) -> Option<Self> {
        // The name of the program may hold anything; what follows its last bracket does not.
        let fields: Vec<&str> = stat[stat.rfind(')')? + 1..].split_ascii_whitespace().collect();
        // utime, stime, and those of children that were waited for.
        let ticks = fields.get(11..15)?.iter().map(|field| field.parse::<u64>().ok()).sum::<Option<u64>>()?;
        Some(Self {
            parent: fields.get(1)?.parse().ok()?,
            cpu_ticks: ticks,
            resident_pages: fields.get(21)?.parse().ok()?,
        })
    }
}

/// A port that is free now. Someone else may take it before its server does; that start then fails.
pub(crate) fn free_address() -> Result<SocketAddr, LoadError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(LoadError::io("find a free port"))?;
    listener.local_addr().map_err(LoadError::io("find a free port"))
}

/// Whole numbers of this bench are far below 2^52.
#[allow(clippy::cast_precision_loss, reason = "counts of requests, ticks and bytes stay far below 2^52")]
pub(crate) fn float(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read_whatever_its_name() {
        let stat =
            "42 (a) b (c) S 7 1 1 0 -1 4194560 1 2 3 4 100 20 3 1 20 0 5 0 99 1000 321 18446744073709551615";
        let process = Process { parent: 7, cpu_ticks: 124, resident_pages: 321 };
        assert_eq!(Process::parse(stat), Some(process));
        assert_eq!(Process::parse("42 (cut"), None);
    }
}
