//! The daemons: `hvm dev`, `hvm scheduler` and `hvm agent` as child processes on free ports.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::program::{Output, program, run};

const LONGEST_START: Duration = Duration::from_secs(60);
/// How much of its log stands in the message about a daemon that does not serve, in characters.
const LOG_SHOWN: usize = 8000;

/// Which daemon, and what only that one needs.
#[derive(Debug, Clone)]
pub enum Role {
    /// Scheduler and agent in one process.
    Dev {
        /// Whose images may run.
        trust: PathBuf,
    },
    /// The scheduler alone.
    Scheduler {
        /// Where its API is to be; `127.0.0.1:0` for a free port.
        api: String,
    },
    /// An agent alone.
    Agent {
        /// The host's name.
        host: String,
        /// The scheduler's API.
        scheduler: String,
        /// Whose images may run.
        trust: PathBuf,
    },
}

/// A daemon that was started and has not said yet that it serves. It is killed when this is dropped.
pub struct Starting {
    daemon: Daemon,
    said: mpsc::Receiver<String>,
    log: PathBuf,
}

/// What a daemon that starts has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// It serves.
    Serving,
    /// It has not said so yet.
    Nothing,
    /// It has ended by itself.
    Ended,
}

impl Starting {
    /// Starts a daemon on a data directory, with further settings.
    ///
    /// # Panics
    /// Where it can't be started.
    #[must_use]
    pub fn spawn(role: &Role, data: &Path, settings: &[&str]) -> Self {
        Self::spawn_as(Command::new(program("hvm")), role, data, settings)
    }

    /// The same, as a process that may have so many files open.
    ///
    /// # Panics
    /// Where it can't be started.
    #[must_use]
    pub fn spawn_with_files(files: u32, role: &Role, data: &Path) -> Self {
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("ulimit -n {files}; exec \"$0\" \"$@\"")).arg(program("hvm"));
        Self::spawn_as(command, role, data, &[])
    }

    fn spawn_as(mut command: Command, role: &Role, data: &Path, settings: &[&str]) -> Self {
        let log = data.with_extension("log");
        role.arguments(&mut command);
        let log_file = std::fs::OpenOptions::new().create(true).append(true).open(&log).expect("a log file");
        command
            .args(settings)
            .arg("--data")
            .arg(data)
            .stdout(Stdio::piped())
            .stderr(log_file)
            .env_remove("RUST_BACKTRACE");
        let mut child = command.spawn().expect("hvm can be started");
        let lines = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
        // The reader goes on to the end, so that the daemon never writes into a closed pipe.
        let (sender, said) = mpsc::sync_channel(64);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let _ = sender.try_send(line);
            }
        });
        Self { daemon: Daemon { child, ingress: String::new(), api: String::new() }, said, log }
    }

    /// Listens to it for as long as said, or until it serves or ends.
    pub fn listen(&mut self, patience: Duration) -> Heard {
        let end = Instant::now() + patience;
        loop {
            match self.said.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => match line.trim().split_once(char::is_whitespace) {
                    Some(("apps", address)) => address.trim().clone_into(&mut self.daemon.ingress),
                    Some(("api", address)) => address.trim().clone_into(&mut self.daemon.api),
                    _ if line.trim() == "serving" => return Heard::Serving,
                    _ => {}
                },
                Err(mpsc::RecvTimeoutError::Timeout) => return Heard::Nothing,
                Err(mpsc::RecvTimeoutError::Disconnected) => return Heard::Ended,
            }
        }
    }

    /// Waits until it serves.
    ///
    /// # Panics
    /// Where it ends instead, or says nothing for a minute, with what it said.
    #[must_use]
    pub fn serving(mut self) -> Daemon {
        assert_eq!(self.listen(LONGEST_START), Heard::Serving, "{}", self.silence());
        self.into_daemon()
    }

    /// The daemon, which was heard to serve.
    #[must_use]
    pub fn into_daemon(self) -> Daemon {
        self.daemon
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.daemon.pid()
    }

    /// SIGKILL, see [`Daemon::kill`].
    pub fn kill(self) {
        self.daemon.kill();
    }

    /// What stands in its log.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// That it does not serve, with the end of its log.
    #[must_use]
    pub fn silence(&self) -> String {
        let log = self.log();
        let end = log.char_indices().rev().nth(LOG_SHOWN).map_or(0, |(at, _)| at);
        format!("the daemon does not serve; its log ends:\n{}", &log[end..])
    }
}

impl Role {
    fn arguments(&self, command: &mut Command) {
        let free = "127.0.0.1:0";
        match self {
            Self::Dev { trust } => {
                command.args(["dev", "--ingress", free, "--api", free, "--trust"]).arg(trust);
            }
            Self::Scheduler { api } => {
                command.args(["scheduler", "--api", api]);
            }
            Self::Agent { host, scheduler, trust } => {
                command.args(["agent", "--ingress", free, "--api", free, "--host", host]);
                command.args(["--scheduler", scheduler, "--trust"]).arg(trust);
            }
        }
    }
}

/// A running daemon. It is killed when this is dropped.
pub struct Daemon {
    child: Child,
    /// `http://host:port` of the ingress; empty where it has none.
    pub ingress: String,
    /// `host:port` of the API.
    pub api: String,
}

impl Daemon {
    /// Starts a daemon on a data directory and waits until it says that it serves.
    ///
    /// # Panics
    /// Where it ends instead, with what it said.
    #[must_use]
    pub fn start(role: &Role, data: &Path) -> Self {
        Self::start_with(role, data, &[])
    }

    /// The same, with further settings.
    ///
    /// # Panics
    /// Where it ends instead, with what it said.
    #[must_use]
    pub fn start_with(role: &Role, data: &Path, settings: &[&str]) -> Self {
        Starting::spawn(role, data, settings).serving()
    }

    /// Runs `hvm` with its API as the one to talk to.
    #[must_use]
    pub fn hvm(&self, arguments: &[&dyn AsRef<std::ffi::OsStr>]) -> Output {
        run("hvm", arguments, &[("HVM_API", &self.api)])
    }

    /// Deploys a file and waits until it runs.
    ///
    /// # Panics
    /// Where it does not.
    pub fn deploy(&self, file: &Path) {
        let _ = self.hvm(&[&"deploy", &file]).success();
    }

    /// `hvm status --json`.
    ///
    /// # Panics
    /// Where it fails.
    #[must_use]
    pub fn status(&self) -> serde_json::Value {
        let text = self.hvm(&[&"status", &"--json"]).success();
        serde_json::from_str(&text).expect("hvm status --json prints JSON")
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL: no chance to write anything.
    ///
    /// # Panics
    /// Where the system refuses.
    pub fn kill(mut self) {
        self.child.kill().expect("the daemon can be killed");
        self.child.wait().expect("the daemon's end is told");
    }

    /// SIGTERM, and the exit code after it drained.
    ///
    /// # Panics
    /// Where the system refuses.
    #[must_use]
    pub fn terminate(mut self) -> i32 {
        let status = Command::new("kill").arg(self.pid().to_string()).status().expect("kill can be started");
        assert!(status.success(), "the daemon is there");
        self.child.wait().expect("the daemon's end is told").code().unwrap_or(-1)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
