//! `hvm dev`, `hvm scheduler` and `hvm agent`: each builds its parts, says where it serves, waits for a
//! signal, drains.
//!
//! What they say goes to stdout, a line each, and ends with `serving`, so that a script can read it; the log
//! goes to stderr.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Write};
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hvm_agent::{Agent, AgentConfig, AgentHandle, ApiListen, CompileChild, Compiling};
use hvm_appimage::{DirSource, TrustPolicy, UnverifiedImage};
use hvm_scheduler::{ImageCheck, Scheduler, SchedulerConfig};
use hvm_types::{ByteSize, CpuMhz, HostId};
use tokio::net::TcpListener;

use crate::cli::{AgentArgs, DevArgs, SchedulerArgs};
use crate::failure::Failure;
use crate::state_store::state_store;
use crate::{settings, signals, telemetry};

/// Runs `hvm dev`: the two daemons as they are, on one API port and one data directory.
pub(crate) async fn dev(args: DevArgs) -> Result<(), Failure> {
    let args = settings::dev(args)?;
    let trust = trust(args.trust)?;
    let state = state_store(args.state, |name| std::env::var(name).ok())?;
    let data = data_dir(args.data)?;
    telemetry::start(args.log_format);
    let listener = listen(args.api.unwrap_or(settings::API)).await?;
    let api = listener.local_addr()?.to_string();

    let mut scheduler = SchedulerConfig::new(data.join("scheduler"));
    scheduler.image_check = Some(image_check(trust.clone())?);
    // Both open what they keep on disk, beside each other.
    let opening = tokio::spawn(Scheduler::open(scheduler));
    let host = HostId::try_from("dev".to_owned())?;
    let mut agent = AgentConfig::new(host, data.join("agent"), format!("http://{api}"));
    agent.ingress = args.ingress.unwrap_or(settings::INGRESS);
    agent.api = ApiListen::Merged { advertised: api.clone() };
    agent.trust = Some(trust);
    agent.state = state;
    limits(&mut agent, args.workers, args.memory, args.cpu);
    agent.compiling = compiling(args.compile_time, args.compile_memory);
    let agent = Agent::start(agent).await;
    let scheduler = opening.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
    let (scheduler, agent) = match (scheduler, agent) {
        (Ok(scheduler), Ok(agent)) => (scheduler, agent),
        (Err(error), agent) => {
            if let Ok(agent) = agent {
                agent.shutdown().await;
            }
            return Err(error.into());
        }
        (Ok(scheduler), Err(error)) => {
            scheduler.shutdown().await;
            return Err(error.into());
        }
    };
    let scheduler = scheduler.serve(listener, |routes| agent.extend(routes))?;

    let addresses = [("apps", format!("http://{}", agent.ingress())), ("api", api)];
    wait(&addresses, &data).await?;
    agent.shutdown().await;
    scheduler.shutdown().await;
    Ok(())
}

/// Runs `hvm agent`.
pub(crate) async fn agent(args: AgentArgs) -> Result<(), Failure> {
    let args = settings::agent(args)?;
    let trust = trust(args.trust.clone())?;
    let data = data_dir(args.data.clone())?;
    telemetry::start(args.log_format);
    let config = agent_config(args, data.clone(), trust)?;
    let agent = Agent::start(config).await?;
    let addresses = [("apps", format!("http://{}", agent.ingress())), ("api", agent.host().api.clone())];
    wait(&addresses, &data).await?;
    AgentHandle::shutdown(agent).await;
    Ok(())
}

/// Runs `hvm scheduler`.
pub(crate) async fn scheduler(args: SchedulerArgs) -> Result<(), Failure> {
    let args = settings::scheduler(args)?;
    let data = data_dir(args.data)?;
    telemetry::start(args.log_format);
    let listener = listen(args.api.unwrap_or(settings::API)).await?;
    let mut config = SchedulerConfig::new(&data);
    config.lease = host_timeout(args.host_timeout)?.unwrap_or(config.lease);
    let scheduler = Scheduler::start(config, listener).await?;
    wait(&[("api", scheduler.address().to_string())], &data).await?;
    scheduler.shutdown().await;
    Ok(())
}

fn agent_config(args: AgentArgs, data: PathBuf, trust: PathBuf) -> Result<AgentConfig, Failure> {
    let host = match args.host {
        Some(name) => HostId::try_from(name)?,
        None => host_name()?,
    };
    let scheduler = args.scheduler.unwrap_or_else(|| settings::API.to_string());
    let mut config = AgentConfig::new(host, data, format!("http://{scheduler}"));
    config.ingress = args.ingress.unwrap_or(settings::INGRESS);
    config.advertised_ingress = args.advertise_ingress;
    config.api =
        ApiListen::Own { address: args.api.unwrap_or(settings::AGENT_API), advertised: args.advertise_api };
    config.trust = Some(trust);
    config.state = state_store(args.state, |name| std::env::var(name).ok())?;
    config.attributes = attributes(&args.attributes)?;
    limits(&mut config, args.workers, args.memory, args.cpu);
    config.compiling = compiling(args.compile_time, args.compile_memory);
    Ok(config)
}

fn limits(
    config: &mut AgentConfig,
    workers: Option<std::num::NonZeroUsize>,
    memory: Option<u64>,
    cpu: Option<u32>,
) {
    config.workers = workers.unwrap_or(config.workers);
    config.memory = memory.map_or(config.memory, ByteSize::mib);
    config.cpu = cpu.map_or(config.cpu, CpuMhz);
}

/// The shortest time after which a host may count as lost: agents report each second.
const SHORTEST_HOST_TIMEOUT: u64 = 2;

fn host_timeout(said: Option<u64>) -> Result<Option<Duration>, Failure> {
    match said {
        Some(seconds) if seconds < SHORTEST_HOST_TIMEOUT => Err(Failure::new(format!(
            "a host-timeout of {seconds} s is too short: agents report each second; {SHORTEST_HOST_TIMEOUT} is the least"
        ))),
        said => Ok(said.map(Duration::from_secs)),
    }
}

/// How long compiling may take at most, for each second of processor time: other work may be in its way.
const WALL_PER_CPU: u32 = 30;

/// Components are compiled by this same program, each in a process of its own.
fn compiling(cpu_seconds: Option<u64>, memory_mb: Option<u64>) -> Compiling {
    let mut child = CompileChild::of_this_program([settings::COMPILE]);
    if let Some(seconds) = cpu_seconds {
        child.cpu = Duration::from_secs(seconds);
        child.wall = child.cpu.saturating_mul(WALL_PER_CPU);
    }
    child.memory = memory_mb.map_or(child.memory, ByteSize::mib);
    Compiling::Child(child)
}

/// The data directory, made where it is missing, for its owner alone: state and settings of apps are in it.
fn data_dir(said: Option<PathBuf>) -> Result<PathBuf, Failure> {
    let data = settings::data_dir(said);
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&data).map_err(|error| {
        Failure::new(format!("can't make the data directory {}: {error}", data.display()))
            .hint("choose a directory of yours with --data DIR")
    })?;
    Ok(data)
}

/// Hosts run nothing that they were not told to trust, so a daemon that runs apps needs to be told.
fn trust(said: Option<PathBuf>) -> Result<PathBuf, Failure> {
    said.ok_or_else(|| {
        Failure::new("nothing says whose images may run here")
            .hint("name a public key or a trust policy with --trust FILE (or HVM_TRUST)")
            .hint("`appimage-tool keygen --out KEY` makes a key; its public half is KEY.pub")
    })
}

/// Lets the scheduler refuse an image that its only host would refuse. The host checks again.
fn image_check(trust: PathBuf) -> Result<ImageCheck, Failure> {
    TrustPolicy::load(&trust)?;
    Ok(Arc::new(move |image, directory| {
        let verify = || -> Result<(), Failure> {
            let policy = TrustPolicy::load(&trust)?;
            let source = DirSource::new(directory, image.index.clone().into_bytes());
            UnverifiedImage::open(source)?.verify(&policy)?;
            Ok(())
        };
        verify().map_err(|failure| failure.text())
    }))
}

fn attributes(said: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    said.iter()
        .map(|attribute| match attribute.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
            _ => Err(Failure::new(format!("`{attribute}` is no attribute: write NAME=VALUE"))),
        })
        .collect()
}

/// The machine's host name up to its first dot.
fn host_name() -> Result<HostId, Failure> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname")?.trim().to_ascii_lowercase();
    let first = name.split('.').next().unwrap_or(&name).to_owned();
    HostId::try_from(first).map_err(|error| Failure::from(error).hint("name this host with --host NAME"))
}

async fn listen(address: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|error| {
        let failure = Failure::new(format!("can't listen on {address}: {error}"));
        if error.kind() == ErrorKind::AddrInUse {
            failure.hint("stop what listens there, or choose another address with --api ADDR:PORT")
        } else {
            failure
        }
    })
}

/// Says where what is served, and waits for the signal to stop.
async fn wait(addresses: &[(&str, String)], data: &std::path::Path) -> Result<(), Failure> {
    let mut out = std::io::stdout();
    for (what, address) in addresses {
        writeln!(out, "{what:<6}{address}")?;
    }
    writeln!(out, "data  {}\nserving", data.display())?;
    out.flush()?;
    let signal = signals::stop_signal().await?;
    tracing::info!("{signal}: draining");
    Ok(())
}
