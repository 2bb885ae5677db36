//! The HVM as an embedder holds it.

use std::fmt;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use hvm_types::{DeploymentName, GroupName, Meter, Metering, ReplicaId};
use tokio::sync::{oneshot, watch};

use crate::host::Host;
use crate::module::Compilers;
use crate::partition::{self, Reply, Start, Started};
use crate::places::Places;
use crate::state::{Import, ImportHead, StateEngine};
use crate::worker::{self, Local, WorkerHandle};
use crate::{
    Call, CallError, CloseError, CompileError, CoreDumpError, CoreDumpWait, Durations, HostLimits,
    HostObservation, HvmConfig, Module, OpenError, PartitionSpec, PartitionStatus, RequestBody, RequestError,
    ResponseBody, StartError, StateChanges, UpgradeError, Usage, UsedSince,
};

/// A call that took longer lets the worker's other work go on before its asker makes the next.
const LONG_CALL: Duration = Duration::from_micros(50);

/// How long a worker may take to say what its partitions used until now.
const SETTLE_PATIENCE: Duration = Duration::from_secs(1);

/// Runs partitions of apps. Clones are handles to the same HVM; it stops when [`Hvm::shutdown`] is called or
/// the last handle goes.
#[derive(Clone)]
pub struct Hvm(Arc<Running>);

struct Running {
    host: Arc<Host>,
    stop: watch::Sender<bool>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// An HVM that is ready to be started. Getting it ready takes milliseconds, and so does opening a state engine: they can
/// go on beside each other.
pub struct PreparedHvm {
    config: HvmConfig,
    compilers: Compilers,
    places: [Places; Metering::ALL.len()],
}

impl PreparedHvm {
    /// Starts it; its partitions keep their state in `state`.
    ///
    /// # Errors
    /// Where there is no thread for a worker.
    pub fn start(self, state: Arc<dyn StateEngine>) -> Result<Hvm, StartError> {
        let Self { config, compilers, places } = self;
        let workers = config.workers.get();
        let host = Arc::new(Host::new(config, compilers, places, state));
        let start_error = |worker| move |source| StartError::Worker { worker, source };
        let (handles, intakes) = worker::prepare(workers);
        host.workers.get_or_init(|| handles);
        let (stop, stopped) = watch::channel(false);
        let mut threads = Vec::with_capacity(workers);
        for (index, intake) in intakes.into_iter().enumerate() {
            let thread =
                worker::start(intake, Arc::clone(&host), stopped.clone()).map_err(start_error(index))?;
            threads.push(thread);
        }
        Ok(Hvm(Arc::new(Running { host, stop, threads: Mutex::new(threads) })))
    }
}

impl fmt::Debug for PreparedHvm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PreparedHvm").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Hvm {
    /// Starts an HVM whose partitions keep their state in `state`.
    ///
    /// # Errors
    /// Where this host can't carry what the settings ask for. The error says what to change.
    pub fn start(config: HvmConfig, state: Arc<dyn StateEngine>) -> Result<Self, StartError> {
        Self::prepare(config)?.start(state)
    }

    /// Gets an HVM ready: its engine, the first places of its pool, what is offered to guests.
    ///
    /// # Errors
    /// Where this host can't carry what the settings ask for. The error says what to change.
    pub fn prepare(config: HvmConfig) -> Result<PreparedHvm, StartError> {
        // Also those that are made when they are first asked for: what is promised then must be there.
        let instances = Metering::ALL.into_iter().map(|metering| config.instances(metering));
        HostLimits::read().check(instances.fold(0, u32::saturating_add))?;
        let places = Metering::ALL.map(|metering| Places::new(metering, config.instances(metering)));
        let compilers = Compilers::new(&config, places.each_ref().map(Places::rest_linker))?;
        Ok(PreparedHvm { config, compilers, places })
    }

    /// [`compile_for`](Self::compile_for) partitions that are metered by processor time.
    ///
    /// # Errors
    /// See [`compile_for`](Self::compile_for).
    pub async fn compile(&self, component: Bytes) -> Result<Module, CompileError> {
        self.compile_for(Metering::Time, component).await
    }

    /// Makes a module of a component, from the cache where its compiled code is there. Who asks for the same
    /// component at the same time waits for the same compilation; where it runs in a child process, it ends when
    /// nobody waits any more.
    ///
    /// # Errors
    /// When it is no component, imports what nobody offers, or can't be compiled within the limits. For ten
    /// minutes such a component is refused without another try.
    pub async fn compile_for(&self, metering: Metering, component: Bytes) -> Result<Module, CompileError> {
        let began = Instant::now();
        let module = self.0.host.compilers.compile(metering, component).await?;
        self.0.host.preparations.add(began.elapsed());
        Ok(module)
    }

    /// Opens a partition or starts a stateless replica. When this returns, it serves.
    ///
    /// # Errors
    /// See [`OpenError`]; nothing of the partition is left then.
    pub async fn open(&self, spec: PartitionSpec) -> Result<(), OpenError> {
        let id = spec.id.clone();
        let worker = self.worker_of(&id);
        worker
            .call(move |local| partition::open(Arc::clone(&local.host), spec))
            .await
            .unwrap_or(Err(OpenError::Stopped { id }))
    }

    /// Replaces what a partition runs. The new version is made ready beside the old one and takes over between
    /// two commands; requests wait meanwhile, and none fails. Where it can't be made ready, the old version
    /// goes on.
    ///
    /// # Errors
    /// See [`UpgradeError`].
    pub async fn upgrade(&self, spec: PartitionSpec) -> Result<(), UpgradeError> {
        let id = spec.id.clone();
        let worker = self.worker_of(&id);
        worker
            .call(move |_| partition::upgrade(spec))
            .await
            .unwrap_or(Err(UpgradeError::Open(OpenError::Stopped { id })))
    }

    /// Finishes an import of state for a partition that runs: between two commands, what was imported takes the place of
    /// its state. Requests wait meanwhile, and none fails. Where the partition does not run, call [`Import::finish`] instead.
    ///
    /// # Errors
    /// See [`UpgradeError`]; after [`UpgradeError::Open`] the partition has failed, and must be closed and opened again.
    pub async fn import(
        &self,
        id: &ReplicaId,
        import: Box<dyn Import>,
        head: ImportHead,
    ) -> Result<(), UpgradeError> {
        let worker = self.worker_of(id);
        let id = id.clone();
        let stopped = UpgradeError::Open(OpenError::Stopped { id: id.clone() });
        worker.call(move |_| partition::import(id, import, head)).await.unwrap_or(Err(stopped))
    }

    /// Closes a partition: it takes nothing new, finishes the requests it has accepted, and goes. Its state
    /// stays where it is.
    ///
    /// # Errors
    /// When it is not open.
    pub async fn close(&self, id: &ReplicaId) -> Result<(), CloseError> {
        let worker = self.worker_of(id);
        let id = id.clone();
        let unknown = CloseError::Unknown { id: id.clone() };
        worker.call(move |_| partition::close(id)).await.unwrap_or(Err(unknown))
    }

    /// Lets a partition answer a request. May be called from any thread; on the worker that owns the partition
    /// nothing is handed over.
    ///
    /// The response of a command is whole and durable when this returns. That of a query or of a stateless
    /// replica goes on while its body is read; where the guest fails half-way, the body ends with an error.
    ///
    /// # Errors
    /// See [`RequestError`], which knows the HTTP status that fits it.
    pub async fn request(
        &self,
        id: &ReplicaId,
        request: Request<RequestBody>,
    ) -> Result<Response<ResponseBody>, RequestError> {
        let (sender, receiver) = oneshot::channel();
        self.hand_over(id, request, Reply::Http(sender)).await?;
        receiver.await.unwrap_or_else(|_| Err(self.broke_off()))
    }

    /// Calls a partition whose component exports `hvm:app/handler`. May be called from any thread; on the worker that
    /// owns the partition, a query that is answered at once makes no task, no channel and no timer.
    ///
    /// What a command wrote is durable when this returns its answer; on every error nothing of it is kept, except where
    /// [`RequestError::CommitUnavailable`] says that it is unknown. Dropping the future ends a query, and does not take
    /// a command back.
    ///
    /// # Errors
    /// [`CallError::Failed`] where the guest says no, [`CallError::Request`] where it did not answer.
    pub async fn call(&self, id: &ReplicaId, call: Call) -> Result<Bytes, CallError> {
        // Calls that are answered at once would never let the worker do anything else.
        tokio::task::coop::consume_budget().await;
        let receiver = match self.start_call(id, call) {
            Ok(Started::Answered(answer, took)) => {
                if took > LONG_CALL {
                    tokio::task::yield_now().await;
                }
                return answer;
            }
            Ok(Started::Waits(receiver)) => receiver,
            Err(call) => {
                let arriving = self.0.host.set_out(id)?;
                let (sender, receiver) = oneshot::channel();
                let id = id.clone();
                let worker = self.worker_of(&id);
                let order = move |local: &Rc<Local>| {
                    drop(arriving);
                    partition::call_from_afar(local, &id, call, sender);
                };
                worker.order(Box::new(order)).await.map_err(|_| RequestError::Stopped)?;
                receiver
            }
        };
        receiver.await.unwrap_or_else(|_| Err(self.broke_off().into()))
    }

    /// Begins a call on the worker that owns the partition; gives it back elsewhere.
    fn start_call(&self, id: &ReplicaId, call: Call) -> Result<Started, Call> {
        let index = self.0.host.worker_of(id);
        match Local::here(&self.0.host, index) {
            Some(local) => Ok(partition::call(&local, id, call)),
            None => Err(call),
        }
    }

    /// Why an answer never came.
    fn broke_off(&self) -> RequestError {
        if *self.0.stop.borrow() {
            return RequestError::Stopped;
        }
        RequestError::Internal { reason: "it broke off in this request; see its log".to_owned() }
    }

    async fn hand_over(
        &self,
        id: &ReplicaId,
        request: Request<RequestBody>,
        reply: Reply,
    ) -> Result<(), RequestError> {
        let index = self.0.host.worker_of(id);
        // What is local may not live across an await: the future can be sent to other threads.
        if let Some(local) = Local::here(&self.0.host, index) {
            partition::accept(&local, id, request, reply, Start::Here);
            return Ok(());
        }
        let arriving = self.0.host.set_out(id)?;
        let id = id.clone();
        let order = move |local: &Rc<Local>| {
            drop(arriving);
            partition::accept(local, &id, request, reply, Start::AsTask);
        };
        self.worker(index).order(Box::new(order)).await.map_err(|_| RequestError::Stopped)
    }

    /// Whether this thread is the worker that a partition is pinned to: then a request to it is not handed over.
    #[must_use]
    pub fn is_here(&self, id: &ReplicaId) -> bool {
        Local::is_here(&self.0.host, self.0.host.worker_of(id))
    }

    /// All partitions as they are now, sorted by id. Never waits for a guest.
    #[must_use]
    pub fn observe(&self) -> Vec<PartitionStatus> {
        self.0.host.observe().iter().map(|observed| observed.status()).collect()
    }

    /// Asks for the core dump of the next guest of this partition that is stopped: by a trap, a limit, or because it
    /// computes up to its deadline. Where `after` is given, also one that computes when its request was in it for
    /// this long is stopped for it, as [`Meter::wall`](hvm_types::Meter::wall) counts; one that starts, since it was made.
    /// Partitions of which nobody waits for a dump don't notice.
    ///
    /// A dump holds whatever the guest's memory held: treat it like the guest's secrets.
    ///
    /// # Errors
    /// Where the partition is not open, or somebody else waits for its dump.
    pub fn core_dump(&self, id: &ReplicaId, after: Option<Duration>) -> Result<CoreDumpWait, CoreDumpError> {
        self.0.host.core_dump(id, after)
    }

    /// Tells from now on which partitions change their state, those that are open at first.
    #[must_use]
    pub fn state_changes(&self) -> StateChanges {
        let host = &self.0.host;
        host.changes.ask(&host.observe());
        StateChanges::new(&host.changes)
    }

    /// What all partitions share, as it is now.
    #[must_use]
    pub fn observe_host(&self) -> HostObservation {
        self.0.host.observe_shared()
    }

    /// How long requests took by group, of the groups that run: from the moment a partition takes a request in until
    /// its guest has done its work. What is refused at once does not count.
    #[must_use]
    pub fn latencies(&self) -> Vec<(DeploymentName, GroupName, Durations)> {
        self.0.host.latencies()
    }

    /// What was used. A partition's processor time is up to date to a tenth of a second.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let observed = self.0.host.observe();
        let partitions: Vec<_> = observed.iter().map(|observed| observed.usage()).collect();
        let (closed, closed_cpu) = self.0.host.closed();
        let in_partitions: Duration = observed
            .iter()
            .zip(&partitions)
            .map(|(observed, usage)| observed.cpu_since_start(&usage.meter))
            .sum();
        let cpu = self.0.host.cpu().saturating_sub(in_partitions).saturating_sub(closed_cpu);
        Usage { partitions, closed, host: Meter { cpu, ..Meter::default() } }
    }

    /// What was used since the last call, exactly: each use is given out once, also that of partitions that were
    /// closed meanwhile. It is for one caller, who keeps the books.
    pub async fn drain_usage(&self) -> UsedSince {
        let settling = self.workers().iter().map(|worker| {
            let settled = worker.call(|local| {
                local.slices.settle();
                std::future::ready(())
            });
            tokio::time::timeout(SETTLE_PATIENCE, settled)
        });
        // Of a worker that hangs or has stopped, what it has settled by itself is taken.
        futures::future::join_all(settling).await;
        self.0.host.drain_usage()
    }

    /// The workers, to run an ingress beside the partitions.
    #[must_use]
    pub fn workers(&self) -> &[WorkerHandle] {
        self.0.host.workers()
    }

    /// The number of the worker that a partition is pinned to. Requests from there are not handed over.
    #[must_use]
    pub fn worker_index(&self, id: &ReplicaId) -> usize {
        self.0.host.worker_of(id)
    }

    /// Closes all partitions, each as [`Hvm::close`] does, and stops the workers. Other handles see an HVM
    /// that has stopped.
    pub async fn shutdown(self) {
        let ids: Vec<_> = self.0.host.observe().iter().map(|observed| observed.id.clone()).collect();
        let closing = ids.iter().map(|id| self.close(id));
        for (id, closed) in ids.iter().zip(futures::future::join_all(closing).await) {
            if let Err(error) = closed {
                tracing::debug!(%id, %error, "already closed");
            }
        }
        self.0.stop();
        // Joining blocks, so it is no worker's and no executor's business.
        let (sender, receiver) = oneshot::channel();
        let threads = self.0.take_threads();
        std::thread::spawn(move || {
            join(threads);
            if sender.send(()).is_err() {
                tracing::debug!("nobody waits for the workers any more");
            }
        });
        if receiver.await.is_err() {
            tracing::error!("the workers could not be joined");
        }
    }

    fn worker_of(&self, id: &ReplicaId) -> &WorkerHandle {
        self.worker(self.0.host.worker_of(id))
    }

    fn worker(&self, index: usize) -> &WorkerHandle {
        &self.0.host.workers()[index]
    }
}

impl Running {
    fn stop(&self) {
        self.stop.send_replace(true);
    }

    fn take_threads(&self) -> Vec<JoinHandle<()>> {
        std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn join(threads: Vec<JoinHandle<()>>) {
    for thread in threads {
        if thread.join().is_err() {
            tracing::error!("a worker thread had panicked");
        }
    }
}

impl Drop for Running {
    /// Stops the workers without waiting for them: the last handle may go on one of their threads.
    fn drop(&mut self) {
        self.stop();
    }
}

impl fmt::Debug for Hvm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hvm").field("config", &self.0.host.config).finish_non_exhaustive()
    }
}
