//! A scheduler that soon takes a silent host for lost, agents whose state is in one store, and the ledger.

use std::path::PathBuf;

use e2e::{App, Client, Daemon, Role, Workshop, eventually};
use guests_path::Guest;
use serde_json::Value;

/// How long a host may be silent, in seconds.
const HOST_TIMEOUT: &str = "2";

pub(crate) struct Scene {
    workshop: Workshop,
    scheduler: Daemon,
    /// What says where the state is.
    settings: Vec<String>,
    file: PathBuf,
}

impl Scene {
    /// State in a directory.
    pub(crate) fn with_directory() -> Self {
        let workshop = Workshop::new();
        let state = workshop.path("shared-state").display().to_string();
        Self::new(workshop, vec!["--state".to_owned(), state])
    }

    /// State in a bucket behind an S3 API.
    pub(crate) fn with_bucket(endpoint: &str) -> Self {
        let workshop = Workshop::new();
        let key = workshop.write("key.toml", "access-key-id = \"test\"\nsecret-access-key = \"test\"\n");
        let key = key.display().to_string();
        let settings =
            ["--state", "s3://state/of/a/fleet", "--state-endpoint", endpoint, "--state-credentials"];
        Self::new(workshop, settings.map(str::to_owned).into_iter().chain([key]).collect())
    }

    fn new(workshop: Workshop, settings: Vec<String>) -> Self {
        let _ = workshop.build(&App {
            name: "ledger",
            package: "books",
            version: "1.0.0",
            component: Guest::Ledger.component(),
            capabilities: &["keyvalue"],
        });
        let file = workshop.write("ledger.yaml", include_str!("../../../../examples/ledger/ledger.yaml"));
        let role = Role::Scheduler { api: "127.0.0.1:0".to_owned() };
        let data = workshop.path("scheduler");
        let scheduler = Daemon::start_with(&role, &data, &["--host-timeout", HOST_TIMEOUT]);
        Self { workshop, scheduler, settings, file }
    }

    /// Starts an agent, for the first time or again, and waits until it has joined.
    pub(crate) fn start(&self, host: &str) -> Daemon {
        let role = Role::Agent {
            host: host.to_owned(),
            scheduler: self.scheduler.api.clone(),
            trust: self.workshop.trust(),
        };
        let name = format!("name={host}");
        let settings = self.settings.iter().map(String::as_str).chain(["--attribute", &name]);
        let settings: Vec<&str> = settings.collect();
        let daemon = Daemon::start_with(&role, &self.workshop.path(host), &settings);
        eventually("the host has joined", || {
            let hosts: Value = serde_json::from_str(&self.scheduler.hvm(&[&"hosts", &"--json"]).success())
                .map_err(|error| error.to_string())?;
            let is_it = |known: &Value| known["spec"]["id"] == host && known["alive"] == true;
            if hosts.as_array().is_some_and(|all| all.iter().any(is_it)) {
                Ok(())
            } else {
                Err(hosts.to_string())
            }
        });
        daemon
    }

    pub(crate) fn deploy(&self) {
        self.scheduler.deploy(&self.file);
    }

    /// Deploys it for one host alone.
    pub(crate) fn deploy_to(&self, host: &str) {
        let only =
            format!("    constraints: [{{ attribute: name, operator: in, value: [{host}] }}]\n    tasks:");
        let everywhere = std::fs::read_to_string(&self.file).expect("a deployment file");
        self.scheduler
            .deploy(&self.workshop.write("one-host.yaml", &everywhere.replace("    tasks:", &only)));
    }

    /// The partitions that a host owns and serves.
    pub(crate) fn owned_by(&self, host: &str) -> Vec<u64> {
        let status = self.scheduler.status();
        let replicas = status[0]["groups"][0]["replicas"].as_array().cloned().unwrap_or_default();
        let serves = |replica: &&Value| {
            let state = &replica["observed"]["state"]["state"];
            replica["host"] == host && (state == "ready" || state == "hibernated")
        };
        replicas.iter().filter(serves).filter_map(|replica| replica["index"].as_u64()).collect()
    }

    pub(crate) fn all_owned_by(&self, host: &str) -> Result<(), String> {
        let owned = self.owned_by(host);
        if owned.len() == 8 {
            Ok(())
        } else {
            Err(format!("{host} serves {owned:?}: {}", self.scheduler.status()))
        }
    }

    /// Each line of `hvm state ls`: partition and host.
    pub(crate) fn listed_state(&self) -> Vec<(String, String)> {
        let listed = self.scheduler.hvm(&[&"state", &"ls", &"--json"]).success();
        let listed: Value = serde_json::from_str(&listed).expect("JSON");
        let text = |line: &Value, field: &str| line[field].as_str().unwrap_or_default().to_owned();
        let lines = listed.as_array().expect("a list");
        lines.iter().map(|line| (text(line, "partition"), text(line, "host"))).collect()
    }

    /// The commits that a host was refused because another one owned the partition.
    pub(crate) fn fenced_commits(&self, host: &Daemon) -> u64 {
        let metrics = Client::new().get(&format!("http://{}/metrics", host.api)).expect("metrics").ok();
        let line = metrics.lines().find(|line| line.starts_with("hvm_fenced_commits_total "));
        let count = line.and_then(|line| line.split(' ').nth(1)?.parse().ok());
        count.unwrap_or_else(|| panic!("no count in\n{metrics}"))
    }
}
