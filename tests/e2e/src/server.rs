//! The daemons: `hvm dev`, `hvm scheduler` and `hvm agent` as child processes on free ports.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use crate::program::{Output, program, run};

const LONGEST_START: Duration = Duration::from_secs(60);

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
        let mut command = Command::new(program("hvm"));
        let free = "127.0.0.1:0";
        match role {
            Role::Dev { trust } => {
                command.args(["dev", "--ingress", free, "--api", free, "--trust"]).arg(trust);
            }
            Role::Scheduler { api } => {
                command.args(["scheduler", "--api", api]);
            }
            Role::Agent { host, scheduler, trust } => {
                command.args(["agent", "--ingress", free, "--api", free, "--host", host]);
                command.args(["--scheduler", scheduler, "--trust"]).arg(trust);
            }
        }
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(data.with_extension("log"))
            .expect("a log file");
        command
            .args(settings)
            .arg("--data")
            .arg(data)
            .stdout(Stdio::piped())
            .stderr(log)
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
        let mut daemon = Self { child, ingress: String::new(), api: String::new() };
        loop {
            match said.recv_timeout(LONGEST_START) {
                Ok(line) => match line.trim().split_once(char::is_whitespace) {
                    Some(("apps", address)) => daemon.ingress = address.trim().to_owned(),
                    Some(("api", address)) => daemon.api = address.trim().to_owned(),
                    _ if line.trim() == "serving" => return daemon,
                    _ => {}
                },
                Err(_) => {
                    let log = std::fs::read_to_string(data.with_extension("log")).unwrap_or_default();
                    panic!("{role:?} does not serve; its log:\n{log}");
                }
            }
        }
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
