//! Putting the agent together, in the order in which its parts need each other, and taking it apart again.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hvm_appimage::TrustPolicy;
use hvm_runtime::state::StateEngine;
use hvm_runtime::{HostLimits, Hvm, HvmConfig, OpenFiles, PreparedHvm};
use hvm_types::{ByteSize, Digest, HostDocument, HostId, HostSpec};
use tokio::sync::{Semaphore, watch};
use tonic::service::Routes;
use tonic::transport::Channel;

use crate::api_server::{ApiListener, ApiServer, extend};
use crate::config::{AgentConfig, ApiListen, measured_memory};
use crate::data_dir::{DataDir, replace_file};
use crate::images::{ImageFetch, ImageStore, Trust};
use crate::ingress::{Ingress, ReadySet, Router, Serving};
use crate::link::{self, Link, LinkHandle};
use crate::logs::Logs;
use crate::reconcile::{Before, DocumentStore, Executor, ModuleSet, Reconcile, ReconcileHandle, Registry};
use crate::service::AgentService;
use crate::start_error::StartError;
use crate::state_files::{self, StateFiles};
use crate::state_store::OpenedState;
use crate::usage::{UsageLedger, UsageLoop, unix_millis};

/// How long requests under way may take when the agent stops; what is not answered then is cut off.
const GRACE: Duration = Duration::from_secs(10);

/// The agent of one host.
#[derive(Debug, Clone, Copy)]
pub struct Agent;

/// A running agent. Dropping it does not stop it; [`AgentHandle::shutdown`] does.
pub struct AgentHandle {
    ingress: Ingress,
    spec: HostSpec,
    service: AgentService,
    link: LinkHandle,
    reconcile: ReconcileHandle,
    usage: UsageLoop,
    api: Option<ApiServer>,
    hvm: Hvm,
    logs: Logs,
    data_dir: DataDir,
}

impl Agent {
    /// Starts an agent: it runs what it ran before at once, and connects to the scheduler beside that. It raises the
    /// process' limit of open files as far as it may.
    ///
    /// # Errors
    /// Where the process may have too few files open, the data directory, a port, the trust policy or what is kept in the
    /// directory can't be used, or the host would offer too little to run anything.
    pub async fn start(config: AgentConfig) -> Result<AgentHandle, StartError> {
        // The limit is the process', and the shares of it are taken from what it is from now on.
        OpenFiles::raise().check()?;
        config.check_offer()?;
        let data_dir = DataDir::lock(&config.data_dir)?;
        // The state and everything else have nothing to do with each other until both are there.
        let (store, host, root) = (config.state.clone(), config.host.clone(), config.data_dir.clone());
        let state = tokio::task::spawn_blocking(move || store.open(&host, &root));
        let prepared = match Kept::open(&config, data_dir) {
            Ok(kept) => Prepared::new(&config, kept).await,
            Err(error) => Err(error),
        };
        let state = state.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
        let (prepared, state) = match (prepared, state) {
            (Ok(prepared), Ok(state)) => (prepared, state),
            (Err(error), _) => return Err(error),
            (Ok(prepared), Err(error)) => {
                prepared.logs.stop().await;
                return Err(error.into());
            }
        };
        prepared.start(config, state).await
    }
}

/// What stands in the data directory, beside the state.
struct Kept {
    data_dir: DataDir,
    documents: DocumentStore,
    before: Before,
    document: Option<HostDocument>,
    usage: Arc<UsageLedger>,
    data_id: String,
    store: ImageStore,
}

impl Kept {
    fn open(config: &AgentConfig, data_dir: DataDir) -> Result<Self, StartError> {
        if let Some(path) = &config.trust {
            TrustPolicy::load(path).map_err(|source| StartError::Trust { path: path.clone(), source })?;
        }
        let documents = DocumentStore::new(data_dir.file("document.json"));
        Ok(Self {
            document: documents.load()?,
            documents,
            before: Before::open(DocumentStore::new(data_dir.file("before.json")))?,
            usage: Arc::new(UsageLedger::open(data_dir.folder("usage")?, unix_millis())?),
            data_id: ensure_data_id(&data_dir)?,
            store: ImageStore::open(data_dir.folder("images")?)?,
            data_dir,
        })
    }
}

/// What needs no state to be made.
struct Prepared {
    kept: Kept,
    channel: Channel,
    logs: Logs,
    hvm: PreparedHvm,
}

impl Prepared {
    async fn new(config: &AgentConfig, kept: Kept) -> Result<Self, StartError> {
        let channel = link::channel(&config.scheduler)?;
        let logs = Logs::start(kept.data_dir.folder("logs")?)?;
        match Hvm::prepare(hvm_config(config, &kept.data_dir, &logs)) {
            Ok(hvm) => Ok(Self { kept, channel, logs, hvm }),
            Err(error) => {
                logs.stop().await;
                Err(error.into())
            }
        }
    }

    async fn start(self, config: AgentConfig, state: OpenedState) -> Result<AgentHandle, StartError> {
        let Self { kept, channel, logs, hvm } = self;
        let OpenedState { engine: state, store } = state;
        let started = match ApiListener::listen(&config.api).await {
            Ok(api) => hvm.start(Arc::clone(&state)).map(|hvm| (api, hvm)).map_err(StartError::from),
            Err(error) => Err(error),
        };
        let (api, hvm) = match started {
            Ok(started) => started,
            Err(error) => {
                logs.stop().await;
                return Err(error);
            }
        };
        let (serving_sender, serving) =
            watch::channel(Arc::new(first_serving(kept.document.as_ref(), &config.host)));
        let started = Ingress::start(&hvm, config.ingress, &serving, &config.host).await;
        let started = started.map_err(StartError::from);
        let started = started.and_then(|ingress| {
            let spec = host_spec(&config, ingress.address(), api.as_ref().map(|api| api.address))?;
            Ok((ingress, HostSpec { store, ..spec }))
        });
        let (ingress, spec) = match started {
            Ok(started) => started,
            Err(error) => {
                hvm.shutdown().await;
                logs.stop().await;
                return Err(error);
            }
        };
        let parts = Parts { kept, state, channel, api, logs, hvm, ingress, spec };
        Ok(parts.connect(&config, serving_sender))
    }
}

/// Everything that is open and does not run yet.
struct Parts {
    kept: Kept,
    state: Arc<dyn StateEngine>,
    channel: Channel,
    api: Option<ApiListener>,
    logs: Logs,
    hvm: Hvm,
    ingress: Ingress,
    spec: HostSpec,
}

impl Parts {
    fn connect(self, config: &AgentConfig, serving: watch::Sender<Arc<Serving>>) -> AgentHandle {
        let Self { kept, state, channel, api, logs, hvm, ingress, spec } = self;
        tell_what_can_be_raised();
        let registry = Arc::new(Registry::new());
        let (documents, newest) = watch::channel(kept.document.map(Arc::new));
        let (confirmed, is_confirmed) = watch::channel(false);
        let trust = Trust::new(config.trust.clone());
        let state_files = StateFiles {
            host: config.host.clone(),
            engine: Arc::clone(&state),
            hvm: hvm.clone(),
            registry: Arc::clone(&registry),
            images: kept.store.clone(),
            trust: trust.clone(),
            places: Arc::new(Semaphore::new(state_files::AT_A_TIME)),
        };
        let modules = ModuleSet {
            hvm: hvm.clone(),
            fetch: ImageFetch::new(channel.clone(), kept.store.clone()),
            store: kept.store,
            trust,
            registry: Arc::clone(&registry),
        };
        let executor = Executor {
            hvm: hvm.clone(),
            state,
            modules,
            registry: Arc::clone(&registry),
            logs: logs.clone(),
            before: kept.before,
        };
        let reconcile = Reconcile {
            host: config.host.clone(),
            executor,
            documents: newest,
            confirmed: is_confirmed,
            shares_state: spec.store.is_some(),
            store: kept.documents,
            serving,
        };
        let service = AgentService {
            host: config.host.clone(),
            hvm: hvm.clone(),
            registry: Arc::clone(&registry),
            logs: logs.clone(),
            usage: Arc::clone(&kept.usage),
            state_files,
        };
        let link = Link {
            channel,
            host: spec.clone(),
            data_id: kept.data_id,
            registry: Arc::clone(&registry),
            documents,
            confirmed,
        };
        AgentHandle {
            reconcile: reconcile.start(),
            link: link.start(),
            usage: UsageLoop::start(kept.usage, hvm.clone()),
            api: api.map(|api| api.serve(service.clone())),
            ingress,
            spec,
            service,
            hvm,
            logs,
            data_dir: kept.data_dir,
        }
    }
}

fn tell_what_can_be_raised() {
    for advice in HostLimits::read().advice() {
        tracing::info!(%advice, "a limit of this host can be raised");
    }
}

/// Before the reconcile loop has looked at anything, requests to what was there before wait for it.
fn first_serving(document: Option<&HostDocument>, host: &HostId) -> Serving {
    document.map_or_else(Serving::default, |document| {
        Serving::new(Arc::new(Router::compile(&document.routing, host)), ReadySet::default())
    })
}

fn hvm_config(config: &AgentConfig, data_dir: &DataDir, logs: &Logs) -> HvmConfig {
    HvmConfig {
        workers: config.workers,
        // More may be offered than there is: partitions without requests hold none.
        memory: ByteSize(config.memory.0.min(measured_memory().0)),
        compiling: config.compiling.clone(),
        cpu: config.cpu,
        log: Arc::new(logs.clone()),
        ..HvmConfig::new(data_dir.file("code"))
    }
}

fn host_spec(
    config: &AgentConfig,
    ingress: SocketAddr,
    api: Option<SocketAddr>,
) -> Result<HostSpec, StartError> {
    let advertised_api = match &config.api {
        ApiListen::Own { advertised, .. } => advertised.as_ref(),
        ApiListen::Merged { advertised } => Some(advertised),
    };
    Ok(HostSpec {
        id: config.host.clone(),
        ingress: advertise("ingress", config.advertised_ingress.as_ref(), Some(ingress))?,
        api: advertise("API", advertised_api, api)?,
        cpu: config.cpu,
        memory: config.memory.0 >> 20,
        attributes: config.attributes.clone(),
        store: None,
    })
}

fn advertise(
    what: &'static str,
    given: Option<&String>,
    listens: Option<SocketAddr>,
) -> Result<String, StartError> {
    match (given, listens) {
        (Some(given), _) => Ok(given.clone()),
        (None, Some(address)) if address.ip().is_unspecified() => {
            Err(StartError::NotAdvertised { what, address })
        }
        (None, Some(address)) => Ok(address.to_string()),
        (None, None) => Ok(String::new()),
    }
}

/// A random text that belongs to the data directory as long as it exists.
fn ensure_data_id(data_dir: &DataDir) -> Result<String, StartError> {
    let path = data_dir.file("data-id");
    match std::fs::read_to_string(&path) {
        Ok(id) if !id.trim().is_empty() => return Ok(id.trim().to_owned()),
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            return Err(StartError::Write { path, source });
        }
        _ => {}
    }
    let mut random = [0; 32];
    getrandom::fill(&mut random).map_err(|error| StartError::Write {
        path: path.clone(),
        source: io::Error::other(error.to_string()),
    })?;
    let id = Digest::of(&random).to_hex();
    replace_file(&path, id.as_bytes()).map_err(|source| StartError::Write { path, source })?;
    Ok(id)
}

impl AgentHandle {
    /// Where the ingress listens.
    #[must_use]
    pub fn ingress(&self) -> SocketAddr {
        self.ingress.address()
    }

    /// What the host tells the scheduler of itself, with the addresses that others reach it by.
    #[must_use]
    pub fn host(&self) -> &HostSpec {
        &self.spec
    }

    /// Adds the agent's API and its `/metrics` to another server, which should take HTTP/1.1 too: what reads metrics
    /// speaks it.
    #[must_use]
    pub fn extend(&self, routes: Routes) -> Routes {
        extend(routes, self.service.clone())
    }

    /// Stops: takes nothing new, answers what was accepted, ends the partitions and keeps everything durable.
    /// Requests and partitions that take longer than ten seconds each are cut off.
    pub async fn shutdown(self) {
        if !self.ingress.stop(GRACE).await {
            tracing::warn!("some requests were not answered within {GRACE:?} and are cut off");
        }
        self.reconcile.stop().await;
        self.link.stop().await;
        if tokio::time::timeout(GRACE, self.hvm.shutdown()).await.is_err() {
            tracing::warn!(
                "some partitions did not end within {GRACE:?}; what they had not committed is dropped"
            );
        }
        // After the partitions, so that what they used until their end is in the books.
        self.usage.stop().await;
        if let Some(api) = self.api {
            api.stop().await;
        }
        self.logs.stop().await;
        drop(self.data_dir);
    }
}
