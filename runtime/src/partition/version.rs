//! One version of a partition: what it runs, with which limits, and its idle instances.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hvm_types::{ByteSize, InstancePolicy};

use crate::capability::PartitionLog;
use crate::egress::EgressPolicy;
use crate::guest::{GuestSettings, Instance, OutgoingPolicy};
use crate::host::Host;
use crate::memory::MemoryAccount;
use crate::observed::Observed;
use crate::progress::{Progress, Step};
use crate::state::PartitionState;
use crate::{OpenError, PartitionSpec, RequestError};

/// Longest deadline: what is longer would keep an upgrade waiting for days.
const MAX_DEADLINE: Duration = Duration::from_secs(24 * 60 * 60);

/// One version of a partition.
pub(super) struct Version {
    pub(super) spec: PartitionSpec,
    pub(super) state: Option<Arc<dyn PartitionState>>,
    pub(super) memory: Arc<MemoryAccount>,
    settings: GuestSettings,
    /// The instance that commands run in, one after another.
    command: Idle,
    /// The instances that queries run in, each one at a time.
    queries: Idle,
}

/// Instances that wait for a request, the one used last at the back. Boxed, because each request moves one out and back
/// in.
type Idle = RefCell<VecDeque<Box<Instance>>>;

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
    if !wasmtime::Engine::same(spec.module.pre().engine(), &host.engine) {
        return Err(invalid("its module was compiled by another HVM".to_owned()));
    }
    if spec.module.permits() > host.config.max_instances {
        return Err(invalid(format!(
            "one instance takes {} places of the pool, which has {}; raise `max_instances`",
            spec.module.permits(),
            host.config.max_instances
        )));
    }
    if !spec.stateful && !spec.grants.keyvalue.is_empty() {
        return Err(invalid(
            "a stateless replica has no state: grant `keyvalue` to partitions only".to_owned(),
        ));
    }
    if spec.resources.deadline.0 > MAX_DEADLINE {
        return Err(invalid(format!("`deadline` is more than {MAX_DEADLINE:?}")));
    }
    if spec.resources.mailbox == 0 || spec.resources.memory == 0 || spec.resources.deadline.0.is_zero() {
        return Err(invalid("`mailbox`, `memory` and `deadline` must be more than 0".to_owned()));
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
        };
        Rc::new(Self { spec, state, memory, settings, command: Idle::default(), queries: Idle::default() })
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
        observed: &Observed,
        progress: &Progress,
        pool: Pool,
        until: tokio::time::Instant,
    ) -> Result<Box<Instance>, RequestError> {
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
        observed: &Observed,
        progress: &Progress,
        until: tokio::time::Instant,
    ) -> Result<Box<Instance>, RequestError> {
        progress.set(Step::Place);
        let slot = host.slot(self.spec.module.permits(), until).await?;
        progress.set(Step::Start);
        let started = Instance::new(&self.spec.module, &self.settings, slot, &observed.instances).await;
        progress.set(Step::Guest);
        started.map(Box::new).map_err(|error| RequestError::Trapped { trap: error.trap })
    }

    /// Gives an instance back after a request that went well.
    pub(super) fn check_in(&self, host: &Host, pool: Pool, mut instance: Box<Instance>, now: Instant) {
        let keep = self.spec.instance == InstancePolicy::Reuse
            && host.may_keep_instances()
            && instance.store.data_mut().is_reusable();
        if keep {
            instance.idle_since = now;
            self.idle(pool).borrow_mut().push_back(instance);
        }
    }

    /// Makes an instance ahead of the first request, and so shows that the component starts. Where the pool is
    /// full, it does not wait.
    pub(super) async fn warm(&self, host: &Host, observed: &Observed) -> Result<(), OpenError> {
        let Some(slot) = host.slot_now(self.spec.module.permits()) else { return Ok(()) };
        let failed = |reason: String| OpenError::Instance { id: self.spec.id.clone(), reason };
        let starting = Instance::new(&self.spec.module, &self.settings, slot, &observed.instances);
        let instance = tokio::time::timeout(self.spec.resources.deadline.0, starting)
            .await
            .map_err(|_| failed("its start takes longer than `deadline`".to_owned()))?
            .map_err(|error| failed(error.to_string()))?;
        let pool = if self.spec.stateful { Pool::Command } else { Pool::Query };
        self.check_in(host, pool, Box::new(instance), Instant::now());
        Ok(())
    }

    pub(super) fn idle_since(&self) -> Option<Instant> {
        let longest = |idle: &Idle| idle.borrow().front().map(|instance| instance.idle_since);
        [longest(&self.command), longest(&self.queries)].into_iter().flatten().min()
    }

    pub(super) fn drop_idle(&self, before: Option<Instant>) -> usize {
        let Some(before) = before else {
            let since = |idle: &Idle| idle.borrow().front().map(|instance| instance.idle_since);
            let idle = match (since(&self.command), since(&self.queries)) {
                (Some(command), Some(query)) if query < command => &self.queries,
                (None, _) => &self.queries,
                _ => &self.command,
            };
            let dropped = idle.borrow_mut().pop_front();
            return usize::from(dropped.is_some());
        };
        let mut dropped = 0;
        for idle in [&self.command, &self.queries] {
            // Dropping an instance may write its last line to the log: not while the list is borrowed.
            loop {
                let instance = idle.borrow_mut().pop_front_if(|instance| instance.idle_since <= before);
                if instance.is_none() {
                    break;
                }
                dropped += 1;
            }
        }
        dropped
    }
}
