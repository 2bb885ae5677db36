//! Does one step. It decides nothing: what to do stands in the step, what came of it goes to the registry.

use std::sync::Arc;

use hvm_runtime::state::{CommitError, StateEngine};
use hvm_runtime::{CloseError, Hvm, OpenError, PartitionSpec, UpgradeError};
use hvm_types::{Assignment, Capability, Grants, ReplicaId};

use super::before::Before;
use super::module_set::{ModuleSet, PrepareError};
use super::observed::{ModuleKey, StepFailure};
use super::plan::Step;
use super::registry::{Done, PreparedModule, Registry};
use crate::failure_text::with_causes;
use crate::logs::Logs;

/// Everything that steps are done with.
#[derive(Clone)]
pub(crate) struct Executor {
    pub(crate) hvm: Hvm,
    pub(crate) state: Arc<dyn StateEngine>,
    pub(crate) modules: ModuleSet,
    pub(crate) registry: Arc<Registry>,
    pub(crate) logs: Logs,
    pub(crate) before: Before,
}

#[derive(Debug, thiserror::Error)]
enum StepError {
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Upgrade(#[from] UpgradeError),
    #[error("the durable state of {replica} can't be deleted")]
    Purge { replica: ReplicaId, source: CommitError },
    #[error("the component of {replica} is not ready; it is prepared again")]
    NotPrepared { replica: ReplicaId },
}

impl Executor {
    /// Does one step to its end.
    pub(crate) async fn execute(&self, step: &Step) -> Result<Done, StepFailure> {
        let done = match step {
            Step::Prepare { module } => {
                self.modules.prepare(module).await.map(Done::Module).map_err(Into::into)
            }
            Step::Close { replica } => {
                self.close(replica).await;
                Ok(Done::Replica)
            }
            Step::Purge { replica } => self.purge(replica).await,
            Step::Adopt { .. } => Ok(Done::Replica),
            Step::Upgrade { assignment } => self.upgrade(assignment).await,
            Step::Open { assignment } => self.open(assignment).await,
        };
        done.map_err(|error| {
            let reason = with_causes(&error);
            tracing::warn!(%step, reason, "a step failed and will be tried again");
            StepFailure { reason, fenced_by: fenced_by(&error) }
        })
    }

    async fn close(&self, replica: &ReplicaId) {
        match self.hvm.close(replica).await {
            Ok(()) | Err(CloseError::Unknown { .. }) => {}
        }
    }

    async fn purge(&self, replica: &ReplicaId) -> Result<Done, StepError> {
        let (state, id) = (Arc::clone(&self.state), replica.clone());
        let removed = tokio::task::spawn_blocking(move || state.remove(&id)).await;
        let removed = removed.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
        removed.map_err(|source| StepError::Purge { replica: replica.clone(), source })?;
        self.logs.remove(replica).await;
        Ok(Done::Replica)
    }

    /// Opens a replica. Where its state can't be migrated for it, what ran before serves on.
    async fn open(&self, assignment: &Assignment) -> Result<Done, StepError> {
        let spec = self.spec(assignment)?;
        let failed = match self.hvm.open(spec).await {
            Ok(()) => {
                self.before.forget(&assignment.replica).await;
                return Ok(Done::Replica);
            }
            Err(error @ OpenError::Migration { .. }) => error,
            Err(error) => return Err(error.into()),
        };
        let Some(before) = self.before.of(&assignment.replica).await else { return Err(failed.into()) };
        // The ownership is the one that it has now.
        let before = Assignment { epoch: assignment.epoch, ..before };
        match self.open_before(&before).await {
            Ok(()) => {
                let failure = StepFailure { reason: with_causes(&failed), fenced_by: None };
                tracing::warn!(replica = %before.replica, reason = failure.reason, "what ran before serves on");
                Ok(Done::Before(Box::new(before), failure))
            }
            Err(error) => {
                let reason = with_causes(&error);
                tracing::warn!(replica = %before.replica, reason, "what ran before does not run either");
                Err(failed.into())
            }
        }
    }

    async fn open_before(&self, before: &Assignment) -> Result<(), StepError> {
        let key = ModuleKey::of(before);
        let prepared = match self.registry.prepared(&key) {
            Some(prepared) => prepared,
            None => self.modules.prepare_aside(&key).await?,
        };
        self.hvm.open(partition_spec(before, prepared)).await?;
        Ok(())
    }

    async fn upgrade(&self, assignment: &Assignment) -> Result<Done, StepError> {
        let spec = self.spec(assignment)?;
        self.hvm.upgrade(spec).await?;
        self.before.forget(&assignment.replica).await;
        Ok(Done::Replica)
    }

    fn spec(&self, assignment: &Assignment) -> Result<PartitionSpec, StepError> {
        let prepared = self
            .registry
            .prepared(&ModuleKey::of(assignment))
            .ok_or_else(|| StepError::NotPrepared { replica: assignment.replica.clone() })?;
        Ok(partition_spec(assignment, prepared))
    }
}

fn fenced_by(error: &StepError) -> Option<hvm_types::Epoch> {
    match error {
        StepError::Open(error) | StepError::Upgrade(UpgradeError::Open(error)) => error.fenced_by(),
        _ => None,
    }
}

fn partition_spec(assignment: &Assignment, prepared: PreparedModule) -> PartitionSpec {
    let task = &assignment.task;
    PartitionSpec {
        id: assignment.replica.clone(),
        epoch: assignment.epoch,
        generation: assignment.generation,
        stateful: assignment.stateful,
        schema: prepared.schema,
        retention: assignment.retention,
        env: task.env.clone(),
        resources: task.resources.clone(),
        grants: effective(&task.grants, &prepared.requested),
        instance: task.instance,
        module: prepared.module,
    }
}

/// What holds is what the deployment grants and the image requests: a grant that nobody asked for opens
/// nothing.
fn effective(granted: &Grants, requested: &[Capability]) -> Grants {
    let asked = |capability| requested.contains(&capability);
    let http = asked(Capability::OutgoingHttp);
    Grants {
        keyvalue: if asked(Capability::Keyvalue) { granted.keyvalue.clone() } else { Vec::new() },
        config: granted.config && asked(Capability::Config),
        logging: granted.logging && asked(Capability::Logging),
        http: if http { granted.http.clone() } else { Vec::new() },
        http_in_commands: granted.http_in_commands && http,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_that_the_image_did_not_request_opens_nothing() {
        let granted = Grants {
            keyvalue: vec!["default".to_owned()],
            config: true,
            logging: true,
            http: vec!["https://rates.example".to_owned()],
            http_in_commands: true,
        };
        let config_only = Grants { config: true, ..Grants::default() };
        assert_eq!(effective(&granted, &[Capability::Config]), config_only);
        assert_eq!(effective(&granted, &Capability::ALL), granted);
        assert_eq!(effective(&Grants::default(), &Capability::ALL), Grants::default());
    }
}
