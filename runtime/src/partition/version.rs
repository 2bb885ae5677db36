//! One version of a partition: what it runs, with which limits, and its idle instances.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hvm_types::{ByteSize, InstancePolicy, Metering, Resources};

use crate::capability::PartitionLog;
use crate::egress::EgressPolicy;
use crate::guest::{GuestSettings, Instance, InstanceHandle, OutgoingPolicy};
use crate::host::Host;
use crate::memory::{Charge, MemoryAccount};
use crate::observed::Observed;
use crate::progress::{Progress, Step};
use crate::state::{PartitionState, Retention};
use crate::worker::Local;
use crate::{OpenError, PartitionSpec, RequestError};

/// Longest deadline: what is longer would keep an upgrade waiting for days.
const MAX_DEADLINE: Duration = Duration::from_secs(24 * 60 * 60);

/// Room in the account that an instance needs before its guest's own memory.
const START_BYTES: u64 = 128 << 10;

/// One version of a partition.
pub(crate) struct Version {
    pub(super) spec: PartitionSpec,
    pub(super) state: Option<Arc<dyn PartitionState>>,
    pub(super) retention: Retention,
    pub(crate) memory: Arc<MemoryAccount>,
    settings: GuestSettings,
    /// The instance that commands run in, one after another.
    command: Idle,
    /// The instances that queries run in, each one at a time.
    queries: Idle,
    /// Whether the worker's order of idle versions has an entry of it.
    is_listed: Cell<bool>,
}

/// Instances that wait for a request, the one used last at the back.
type Idle = RefCell<VecDeque<InstanceHandle>>;

/// Which instances a request may use. Queries have their own: what a query leaves in a guest's memory never
/// reaches a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pool {
    Command,
    Query,
}

/// Checks a spec before anything is made of it.
pub(super) fn check(host: &Host, spec: &PartitionSpec) -> Result<EgressPolicy, OpenError> {
    let id = || spec.id.clone();
    let invalid = |reason: String| OpenError::Invalid { id: id(), reason };
    spec.module.check(&spec.grants).map_err(|source| OpenError::NotGranted { id: id(), source })?;
    let metering = spec.module.metering();
    if !host.compilers.has(metering, spec.module.engine()) {
        return Err(invalid("its module was compiled by another HVM".to_owned()));
    }
    if spec.module.permits() > host.config.instances(metering) {
        return Err(invalid(format!(
            "one instance takes {} places of the pool, which has {}; raise `{}`",
            spec.module.permits(),
            host.config.instances(metering),
            match metering {
                Metering::Time => "max_instances",
                Metering::Deterministic => "max_deterministic_instances",
            }
        )));
    }
    if !spec.stateful && !spec.grants.keyvalue.is_empty() {
        return Err(invalid(
            "a stateless replica has no state: grant `keyvalue` to partitions only".to_owned(),
        ));
    }
    let Resources { deadline, migration_deadline, .. } = spec.resources;
    if deadline.max(migration_deadline).0 > MAX_DEADLINE {
        return Err(invalid(format!("`deadline` or `migration_deadline` is more than {MAX_DEADLINE:?}")));
    }
    if spec.resources.mailbox == 0
        || spec.resources.memory == 0
        || deadline.min(migration_deadline).0.is_zero()
    {
        let reason = "`mailbox`, `memory`, `deadline` and `migration_deadline` must be more than 0";
        return Err(invalid(reason.to_owned()));
    }
    if let Some(problem) = spec.schema.problem() {
        return Err(invalid(problem));
    }
    EgressPolicy::from_grants(&spec.grants.http).map_err(|error| invalid(error.to_string()))
}

impl Version {
    pub(super) fn new(
        host: &Host,
        observed: &Observed,
        log: &Arc<PartitionLog>,
        spec: PartitionSpec,
        egress: EgressPolicy,
        state: Option<Arc<dyn PartitionState>>,
    ) -> Rc<Self> {
        egress.charge_to(&observed.meter);
        let limit = ByteSize::mib(u64::from(spec.resources.memory));
        let memory = MemoryAccount::new(limit, Arc::clone(&host.memory), Arc::clone(&observed.meter));
        let settings = GuestSettings {
            env: Arc::new(spec.env.clone()),
            config_granted: spec.grants.config,
            stores: spec.grants.keyvalue.clone().into(),
            state: state.clone(),
            outgoing: Arc::new(OutgoingPolicy { egress, in_commands: spec.grants.http_in_commands }),
            memory: Arc::clone(&memory),
            answer_limit: spec.resources.response_body,
            log: Arc::clone(log),
            dumps: Arc::clone(&observed.dumps),
        };
        let (command, queries) = (Idle::default(), Idle::default());
        let retention = Retention::from(&spec.retention);
        let is_listed = Cell::new(false);
        Rc::new(Self { spec, state, retention, memory, settings, command, queries, is_listed })
    }

    /// How it is metered, which decides about where its instances live.
    pub(crate) fn metering(&self) -> Metering {
        self.spec.module.metering()
    }

    /// For what the host holds for it beside its instances.
    pub(super) fn charge(&self) -> Charge {
        Charge::none(Arc::clone(&self.memory))
    }

    fn idle(&self, pool: Pool) -> &Idle {
        match pool {
            Pool::Command => &self.command,
            Pool::Query => &self.queries,
        }
    }

    /// An instance: the one used last where one is idle, else a new one, for which it may have to wait.
    pub(super) async fn check_out(
        &self,
        host: &Host,
        observed: &Arc<Observed>,
        progress: &Progress,
        pool: Pool,
        until: tokio::time::Instant,
    ) -> Result<InstanceHandle, RequestError> {
        let idle = self.idle(pool).borrow_mut().pop_back();
        if let Some(instance) = idle {
            return Ok(instance);
        }
        // In a box, because most requests never get here and all of them would carry it.
        Box::pin(self.make(host, observed, progress, until)).await
    }

    async fn make(
        &self,
        host: &Host,
        observed: &Arc<Observed>,
        progress: &Progress,
        until: tokio::time::Instant,
    ) -> Result<InstanceHandle, RequestError> {
        progress.set(Step::Place);
        let places = host.places(self.metering());
        let place = places.take(host.workers(), self.spec.module.permits(), until).await?;
        progress.set(Step::Start);
        self.memory.room_from_leaving(START_BYTES).await;
        let started = Instance::new(&self.spec.module, &self.settings, place, observed).await;
        progress.set(Step::Guest);
        started.map(InstanceHandle::new).map_err(|error| RequestError::Trapped { trap: error.trap })
    }

    /// Gives an instance back after a request that went well and ended at `now`.
    pub(super) fn check_in(
        self: &Rc<Self>,
        host: &Host,
        pool: Pool,
        mut instance: InstanceHandle,
        now: Instant,
    ) {
        let keep = self.spec.instance == InstancePolicy::Reuse
            && host.places(self.metering()).may_keep_instances()
            && instance.store.data_mut().is_reusable();
        if keep {
            instance.idle_since = now;
            self.idle(pool).borrow_mut().push_back(instance);
            if !self.is_listed.get()
                && let Some(local) = Local::current()
            {
                self.is_listed.set(true);
                local.idle(self.metering()).add(now, self);
            }
        }
    }

    /// Makes an instance ahead of the first request, and so shows that the component starts. Where the pool is
    /// full, it does not wait.
    pub(super) async fn warm(
        self: &Rc<Self>,
        host: &Host,
        observed: &Arc<Observed>,
    ) -> Result<(), OpenError> {
        let places = host.places(self.metering());
        let Some(place) = places.take_if_free(self.spec.module.permits()).await else { return Ok(()) };
        let failed = |reason: String| OpenError::Instance { id: self.spec.id.clone(), reason };
        let starting = Instance::new(&self.spec.module, &self.settings, place, observed);
        let instance = tokio::time::timeout(self.spec.resources.deadline.0, starting)
            .await
            .map_err(|_| failed("its start takes longer than `deadline`".to_owned()))?
            .map_err(|error| failed(error.to_string()))?;
        let pool = if self.spec.stateful { Pool::Command } else { Pool::Query };
        self.check_in(host, pool, InstanceHandle::new(instance), Instant::now());
        Ok(())
    }

    /// Since when its longest-idle instance is idle.
    pub(crate) fn idle_since(&self) -> Option<Instant> {
        [&self.command, &self.queries].into_iter().filter_map(longest).min()
    }

    /// Takes the longest-idle instance, to drop it.
    pub(crate) fn take_longest_idle(&self) -> Option<InstanceHandle> {
        let idle = match (longest(&self.command), longest(&self.queries)) {
            (Some(command), Some(query)) if query < command => &self.queries,
            (None, _) => &self.queries,
            _ => &self.command,
        };
        idle.borrow_mut().pop_front()
    }

    /// Drops all idle instances.
    pub(super) fn drop_idle(&self) {
        while let Some(idle) = self.take_longest_idle() {
            drop(idle);
        }
    }

    /// Takes note that the worker's order of idle versions has no entry of it any more.
    pub(crate) fn unlist(&self) {
        self.is_listed.set(false);
    }
}

fn longest(idle: &Idle) -> Option<Instant> {
    idle.borrow().front().map(|instance| instance.idle_since)
}
