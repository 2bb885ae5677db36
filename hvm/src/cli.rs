//! The command line: what can be said, and the text that teaches it.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use serde::Deserialize;

use crate::telemetry::LogFormat;

/// Runs signed WebAssembly apps as durable partitions.
#[derive(Debug, Parser)]
#[command(
    name = "hvm",
    version,
    about,
    max_term_width = 100,
    after_help = "A first run, with an image made and signed by appimage-tool:\n  \
        hvm dev --trust app.pub            # everything in one process\n  \
        hvm deploy app.yaml                # in another terminal\n  \
        hvm status\n\n\
        Every listing takes --json. Exit codes: 0 done, 1 refused or failed, 2 wrong usage."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run scheduler and agent in one process, for one machine.
    ///
    /// State, images and logs stay in the data directory: start it again there and everything that was
    /// declared runs again. SIGINT or SIGTERM drains and stops it.
    Dev(DevArgs),
    /// Run the agent of this host: it fetches, verifies and runs what the scheduler assigns to it.
    ///
    /// Without the scheduler it keeps running what it has.
    Agent(AgentArgs),
    /// Run the scheduler: it stores what is declared and assigns it to hosts.
    Scheduler(SchedulerArgs),
    /// Send images to the scheduler, or list those it has.
    #[command(subcommand)]
    Image(ImageCommand),
    /// Show what deploying a file would do, and why; change nothing.
    Plan(PlanArgs),
    /// Declare a deployment: make what runs be what the file says.
    ///
    /// Sends the image where the file names one, declares the deployment and waits until every copy
    /// serves. Deploying an unchanged file changes nothing.
    Deploy(DeployArgs),
    /// Show what was declared and what runs.
    Status(StatusArgs),
    /// Show the hosts.
    Hosts(ListArgs),
    /// Show the log lines of an app's partitions.
    Logs(LogsArgs),
    /// Wait for the next guest that is stopped, and write its core dump to a file.
    ///
    /// A guest is stopped by a trap, by a limit, or because it computes up to its deadline. The dump is a file in the
    /// WebAssembly core dump format. It holds the guest's memory, with any secret that was there; the host keeps
    /// nothing of it, and nothing is dumped while nobody waits.
    Coredump(CoredumpArgs),
    /// Show what each partition used, and the hosts beside them.
    ///
    /// What a host's partitions used and what stands beside `(host)` sum to what its process used. It is kept in
    /// windows of five seconds: a crash loses at most the one that is open.
    ///
    /// Time `in guest` holds what guests await by themselves, such as a call out, and not what the host lets requests wait
    /// for: their share of the processor (`throttled`), their turn, a place in memory.
    Usage(UsageArgs),
    /// List, copy, restore and check the durable state of partitions.
    #[command(subcommand)]
    State(StateCommand),
    /// Stop a deployment. Its durable state stays, unless --purge is given.
    Stop(StopArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ApiArgs {
    /// Address of the scheduler's API.
    #[arg(long, env = "HVM_API", default_value = "127.0.0.1:7070", value_name = "HOST:PORT")]
    pub(crate) api: String,
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    pub(crate) api: ApiArgs,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// The part of the settings that says how partitions run on this host.
#[derive(Debug, Default, Clone, Args, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub(crate) struct DevArgs {
    /// TOML file with these settings; flags and environment go before it.
    #[arg(long, env = "HVM_CONFIG", value_name = "FILE")]
    #[serde(skip)]
    pub(crate) config: Option<PathBuf>,
    /// Directory for state, images and logs [default: hvm-data].
    #[arg(long, env = "HVM_DATA", value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Where the state of partitions is kept.
    #[command(flatten)]
    pub(crate) state: StateArgs,
    /// Whose images may run: a public key (from appimage-tool keygen) or a trust policy in TOML.
    #[arg(long, env = "HVM_TRUST", value_name = "FILE")]
    pub(crate) trust: Option<PathBuf>,
    /// Where requests to the apps arrive [default: 127.0.0.1:8080].
    #[arg(long, env = "HVM_INGRESS", value_name = "ADDR:PORT")]
    pub(crate) ingress: Option<SocketAddr>,
    /// Where this program's other commands arrive [default: 127.0.0.1:7070].
    #[arg(long, env = "HVM_API", value_name = "ADDR:PORT")]
    pub(crate) api: Option<SocketAddr>,
    /// Threads that run partitions [default: one per processor].
    #[arg(long, env = "HVM_WORKERS", value_name = "N")]
    pub(crate) workers: Option<std::num::NonZeroUsize>,
    /// Memory offered to partitions, in MB: the sum of their limits, which may exceed the machine's [default: three
    /// quarters of the machine's].
    #[arg(long, env = "HVM_MEMORY", value_name = "MB")]
    pub(crate) memory: Option<u64>,
    /// Processor share for all partitions together, in MHz [default: the machine's].
    #[arg(long, env = "HVM_CPU", value_name = "MHZ")]
    pub(crate) cpu: Option<u32>,
    /// Processor time that compiling one component may take, in seconds [default: 120].
    #[arg(long, env = "HVM_COMPILE_TIME", value_name = "SECONDS")]
    pub(crate) compile_time: Option<u64>,
    /// Memory that compiling one component may take, in MB [default: 2048].
    #[arg(long, env = "HVM_COMPILE_MEMORY", value_name = "MB")]
    pub(crate) compile_memory: Option<u64>,
    /// Form of the daemon's own log on stderr [default: text].
    #[arg(long, env = "HVM_LOG_FORMAT", value_name = "FORMAT")]
    pub(crate) log_format: Option<LogFormat>,
}

#[derive(Debug, Default, Clone, Args, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub(crate) struct AgentArgs {
    /// TOML file with these settings; flags and environment go before it.
    #[arg(long, env = "HVM_CONFIG", value_name = "FILE")]
    #[serde(skip)]
    pub(crate) config: Option<PathBuf>,
    /// This host's name, unique among the hosts [default: the machine's host name].
    #[arg(long, env = "HVM_HOST", value_name = "NAME")]
    pub(crate) host: Option<String>,
    /// Address of the scheduler's API [default: 127.0.0.1:7070].
    #[arg(long, env = "HVM_SCHEDULER", value_name = "HOST:PORT")]
    pub(crate) scheduler: Option<String>,
    /// Directory for state, images and logs [default: hvm-data].
    #[arg(long, env = "HVM_DATA", value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Where the state of partitions is kept.
    #[command(flatten)]
    pub(crate) state: StateArgs,
    /// Whose images may run: a public key (from appimage-tool keygen) or a trust policy in TOML.
    #[arg(long, env = "HVM_TRUST", value_name = "FILE")]
    pub(crate) trust: Option<PathBuf>,
    /// Where requests to the apps arrive [default: 127.0.0.1:8080].
    #[arg(long, env = "HVM_INGRESS", value_name = "ADDR:PORT")]
    pub(crate) ingress: Option<SocketAddr>,
    /// Where logs and usage of this host are asked for [default: 127.0.0.1:7071].
    #[arg(long, env = "HVM_AGENT_API", value_name = "ADDR:PORT")]
    pub(crate) api: Option<SocketAddr>,
    /// `host:port` of the ingress as other hosts reach it [default: where it listens].
    #[arg(long, env = "HVM_ADVERTISE_INGRESS", value_name = "HOST:PORT")]
    pub(crate) advertise_ingress: Option<String>,
    /// `host:port` of this host's API as operators reach it [default: where it listens].
    #[arg(long, env = "HVM_ADVERTISE_API", value_name = "HOST:PORT")]
    pub(crate) advertise_api: Option<String>,
    /// Attribute that constraints compare, such as zone=a; may be repeated.
    #[arg(long = "attribute", value_name = "NAME=VALUE")]
    pub(crate) attributes: Vec<String>,
    /// Threads that run partitions [default: one per processor].
    #[arg(long, env = "HVM_WORKERS", value_name = "N")]
    pub(crate) workers: Option<std::num::NonZeroUsize>,
    /// Memory offered to partitions, in MB: the sum of their limits, which may exceed the machine's [default: three
    /// quarters of the machine's].
    #[arg(long, env = "HVM_MEMORY", value_name = "MB")]
    pub(crate) memory: Option<u64>,
    /// Processor share for all partitions together, in MHz [default: the machine's].
    #[arg(long, env = "HVM_CPU", value_name = "MHZ")]
    pub(crate) cpu: Option<u32>,
    /// Processor time that compiling one component may take, in seconds [default: 120].
    #[arg(long, env = "HVM_COMPILE_TIME", value_name = "SECONDS")]
    pub(crate) compile_time: Option<u64>,
    /// Memory that compiling one component may take, in MB [default: 2048].
    #[arg(long, env = "HVM_COMPILE_MEMORY", value_name = "MB")]
    pub(crate) compile_memory: Option<u64>,
    /// Form of the daemon's own log on stderr [default: text].
    #[arg(long, env = "HVM_LOG_FORMAT", value_name = "FORMAT")]
    pub(crate) log_format: Option<LogFormat>,
}

/// Where the state of partitions is kept: in a settings file the table `[state]`.
#[derive(Debug, Default, Clone, Args, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub(crate) struct StateArgs {
    /// Where the state of partitions is kept: `local` in the data directory, a directory that other hosts have mounted
    /// too, or s3://BUCKET/PREFIX. What several hosts reach survives the loss of each of them [default: local].
    #[arg(long = "state", env = "HVM_STATE", value_name = "STORE")]
    pub(crate) store: Option<String>,
    /// Address of the S3 API [default: AWS_ENDPOINT_URL, else Amazon's of the region].
    #[arg(long = "state-endpoint", env = "HVM_STATE_ENDPOINT", value_name = "URL")]
    pub(crate) endpoint: Option<String>,
    /// Region of the bucket [default: AWS_REGION, else us-east-1].
    #[arg(long = "state-region", env = "HVM_STATE_REGION", value_name = "REGION")]
    pub(crate) region: Option<String>,
    /// TOML file with access-key-id and secret-access-key for the S3 API [default: AWS_ACCESS_KEY_ID and
    /// AWS_SECRET_ACCESS_KEY of the environment].
    #[arg(long = "state-credentials", env = "HVM_STATE_CREDENTIALS", value_name = "FILE")]
    pub(crate) credentials: Option<PathBuf>,
}

#[derive(Debug, Default, Clone, Args, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub(crate) struct SchedulerArgs {
    /// TOML file with these settings; flags and environment go before it.
    #[arg(long, env = "HVM_CONFIG", value_name = "FILE")]
    #[serde(skip)]
    pub(crate) config: Option<PathBuf>,
    /// Directory for what was declared and for images [default: hvm-data].
    #[arg(long, env = "HVM_DATA", value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Where agents and this program's other commands arrive [default: 127.0.0.1:7070].
    #[arg(long, env = "HVM_API", value_name = "ADDR:PORT")]
    pub(crate) api: Option<SocketAddr>,
    /// How long a host may be silent until it counts as lost, in seconds: then its partitions move to hosts that reach
    /// their state [default: 5].
    #[arg(long, env = "HVM_HOST_TIMEOUT", value_name = "SECONDS")]
    pub(crate) host_timeout: Option<u64>,
    /// Form of the daemon's own log on stderr [default: text].
    #[arg(long, env = "HVM_LOG_FORMAT", value_name = "FORMAT")]
    pub(crate) log_format: Option<LogFormat>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// Send an image file to the scheduler. What is there already is not sent again.
    Push {
        /// The image, a file ending in .aimg.
        file: PathBuf,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// List the images that the scheduler has.
    Ls(ListArgs),
}

#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    /// The deployment file, YAML or JSON.
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) list: ListArgs,
}

#[derive(Debug, Args)]
pub(crate) struct DeployArgs {
    /// The deployment file, YAML or JSON.
    pub(crate) file: PathBuf,
    /// Return when it is declared, without waiting until it runs.
    #[arg(long)]
    pub(crate) detach: bool,
    /// Longest wait until everything runs, in seconds.
    #[arg(long, default_value_t = 120, value_name = "SECONDS")]
    pub(crate) timeout: u64,
    #[command(flatten)]
    pub(crate) api: ApiArgs,
}

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// One deployment; all where it is missing.
    pub(crate) deployment: Option<String>,
    /// One line for each copy, not for each group.
    #[arg(long)]
    pub(crate) partitions: bool,
    /// What is being done now: one line for each request that is not answered yet, asked from the hosts themselves.
    #[arg(long, conflicts_with = "partitions")]
    pub(crate) doing: bool,
    #[command(flatten)]
    pub(crate) list: ListArgs,
}

#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// A deployment, deployment/group or deployment/group/number.
    pub(crate) of: String,
    /// How many of the stored lines to show first.
    #[arg(long, short = 'n', default_value_t = 100, value_name = "LINES")]
    pub(crate) last: u32,
    /// Go on with new lines as they come.
    #[arg(long, short)]
    pub(crate) follow: bool,
    #[command(flatten)]
    pub(crate) list: ListArgs,
}

#[derive(Debug, Args)]
pub(crate) struct CoredumpArgs {
    /// A deployment, deployment/group or deployment/group/number.
    pub(crate) of: String,
    /// Where the dump goes: a file that is not there yet. Only its owner may read it.
    #[arg(long, short, value_name = "FILE")]
    pub(crate) out: PathBuf,
    /// Stop a guest, too, that computes when its request was in it for this long, such as 2s: to see where it hangs. What
    /// the host let the request wait for does not count.
    #[arg(long, value_name = "TIME")]
    pub(crate) after: Option<hvm_types::Period>,
    /// Longest wait.
    #[arg(long, value_name = "TIME", default_value = "10m")]
    pub(crate) wait: hvm_types::Period,
    #[command(flatten)]
    pub(crate) api: ApiArgs,
}

#[derive(Debug, Args)]
pub(crate) struct UsageArgs {
    /// A deployment, deployment/group or deployment/group/number; all where it is missing.
    pub(crate) of: Option<String>,
    /// Only what was used in the last time, such as 10s or 5m; a host remembers an hour.
    #[arg(long, value_name = "TIME")]
    pub(crate) last: Option<hvm_types::Period>,
    /// Each window by itself.
    #[arg(long)]
    pub(crate) windows: bool,
    #[command(flatten)]
    pub(crate) list: ListArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum StateCommand {
    /// List the state on all hosts, of partitions that run and of those that do not.
    Ls {
        /// A deployment, deployment/group or deployment/group/number; all where it is missing.
        of: Option<String>,
        #[command(flatten)]
        list: ListArgs,
    },
    /// Write the state of many partitions to files, one for each, and a list of them.
    ///
    /// Each file is its partition as of one committed command; commands go on meanwhile. The list, manifest.json, is
    /// written last, so that a folder with one is complete.
    Snapshot {
        /// A deployment or deployment/group; all where it is missing.
        of: Option<String>,
        /// Where the files go: a folder that is empty or not there yet.
        #[arg(long, short, value_name = "DIR")]
        out: PathBuf,
        #[command(flatten)]
        list: ListArgs,
    },
    /// Write the state of one partition to a file, as of one committed command; commands go on meanwhile.
    ///
    /// The file holds everything: keys, values, and the answers by which a repeated command is recognised. Only its
    /// owner may read it.
    Export {
        /// The partition: deployment/group/number.
        partition: String,
        /// Where it goes: a file that is not there yet.
        #[arg(long, short, value_name = "FILE")]
        out: PathBuf,
        #[command(flatten)]
        list: ListArgs,
    },
    /// Make the state of a partition be that of a file.
    ///
    /// The partition must be deployed. It goes on until the whole file has arrived and was found whole; then its
    /// requests wait for the moment in which the state is put in place. If anything goes wrong, it stays as it was.
    Import {
        /// The partition: deployment/group/number.
        partition: String,
        /// A file that `hvm state export` or `snapshot` wrote.
        file: PathBuf,
        /// Also where the partition has state of its own, which is gone then. It can't be undone.
        #[arg(long)]
        replace: bool,
        #[command(flatten)]
        list: ListArgs,
    },
    /// Read state to its last byte and say what is wrong with it: of files, of a snapshot's folder, or of partitions.
    Check {
        /// Files, folders of snapshots, or names: a deployment, deployment/group or deployment/group/number.
        #[arg(required = true)]
        what: Vec<PathBuf>,
        #[command(flatten)]
        list: ListArgs,
    },
}

#[derive(Debug, Args)]
pub(crate) struct StopArgs {
    /// The deployment.
    pub(crate) deployment: String,
    /// Also delete the durable state of its partitions. It can't be undone.
    #[arg(long)]
    pub(crate) purge: bool,
    /// Return at once, without waiting until it is gone from every host.
    #[arg(long)]
    pub(crate) detach: bool,
    #[command(flatten)]
    pub(crate) api: ApiArgs,
}
