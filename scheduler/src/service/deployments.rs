//! Deploy, Plan, Stop, GetStatus.

use std::sync::Arc;

use bytes::Bytes;
use hvm_api::{ErrorKind, Failure, InvalidField, v1};
use hvm_types::DeploymentName;
use serde::Serialize;

use crate::admission::{self, Admitted};
use crate::core::Core;
use crate::documents::{DeploymentDocument, StopOrder, Versioned, World, encode, key};
use crate::failure::IntoFailure as _;
use crate::planner;
use crate::store::{Revision, StoreError, Transaction, Write};
use crate::{status as observed_status, view};

/// How often a change is tried again that lost against another.
const MAX_ATTEMPTS: u32 = 8;

async fn load(core: &Core) -> Result<World, Failure> {
    World::load(&*core.store).await.map_err(|error| error.into_failure())
}

fn name_of(text: &str) -> Result<DeploymentName, Failure> {
    text.parse().map_err(|reason| Failure::new(ErrorKind::Invalid, InvalidField::new("deployment", reason)))
}

async fn write(
    core: &Core,
    name: &DeploymentName,
    known: Option<Revision>,
    document: &impl Serialize,
) -> Result<Revision, StoreError> {
    let key = key::deployment(name);
    let value = Bytes::from(encode(document));
    let expects = vec![(key.clone(), known)];
    core.store.transact(Transaction { expects, writes: vec![Write::Put { key, value, lease: None }] }).await
}

/// Writes what `decide` makes of the documents as they are; anew if they changed meanwhile.
pub(super) async fn deploy(core: &Core, request: &v1::DeployRequest) -> Result<v1::DeployResponse, Failure> {
    let mut attempt = 1;
    loop {
        let admitted = admission::admit(core, &load(core).await?, request).await?;
        let generation = admitted.document.current.generation.0;
        if !admitted.changed {
            return Ok(v1::DeployResponse { generation, changed: false });
        }
        match write(core, admitted.name(), admitted.known, &admitted.document).await {
            Ok(_) => {
                tracing::info!(deployment = %admitted.name(), generation, "accepted");
                return Ok(v1::DeployResponse { generation, changed: true });
            }
            Err(error) if error.kind() == ErrorKind::Conflict && attempt < MAX_ATTEMPTS => attempt += 1,
            Err(error) => return Err(error.into_failure()),
        }
    }
}

/// What `deploy` would do, and the planner after it.
pub(super) async fn plan(core: &Core, request: &v1::DeployRequest) -> Result<v1::PlanResponse, Failure> {
    let mut world = load(core).await?;
    let Admitted { document, image, .. } = admission::admit(core, &world, request).await?;
    let DeploymentDocument { current, .. } = &document;
    let name = current.spec.deployment.clone();
    let generation = current.generation.0;
    let capabilities = admission::capability_lines(&current.spec, &image.config);
    let wanted = Versioned { revision: world.revision, value: Arc::new(document) };
    world.deployments.insert(name.clone(), wanted);
    let observed = core.observations.all();
    let next = planner::plan(&view::plan_input(&world, &observed));
    Ok(v1::PlanResponse { generation, lines: observed_status::plan_lines(&next, &name), capabilities })
}

pub(super) async fn stop(core: &Core, request: &v1::StopRequest) -> Result<v1::StopResponse, Failure> {
    let name = name_of(&request.deployment)?;
    let mut attempt = 1;
    loop {
        let world = load(core).await?;
        let Some(known) = world.deployments.get(&name) else {
            let line = format!("there is no deployment `{name}`; `hvm status` lists those there are");
            return Err(Failure::new(ErrorKind::NotFound, line));
        };
        let generation = known.value.current.generation.0;
        let purge = request.purge || known.value.stop.is_some_and(|stop| stop.purge);
        let wanted = DeploymentDocument { stop: Some(StopOrder { purge }), ..(*known.value).clone() };
        if wanted == *known.value {
            return Ok(v1::StopResponse { generation });
        }
        match write(core, &name, Some(known.revision), &wanted).await {
            Ok(_) => {
                tracing::info!(deployment = %name, purge, "stopping");
                return Ok(v1::StopResponse { generation });
            }
            Err(error) if error.kind() == ErrorKind::Conflict && attempt < MAX_ATTEMPTS => attempt += 1,
            Err(error) => return Err(error.into_failure()),
        }
    }
}

pub(super) async fn status(
    core: &Core,
    request: &v1::GetStatusRequest,
) -> Result<v1::GetStatusResponse, Failure> {
    let only = match request.deployment.as_str() {
        "" => None,
        name => Some(name_of(name)?),
    };
    let world = load(core).await?;
    let observed = core.observations.all();
    let (deployments, hosts) = observed_status::status(&world, &observed, only.as_ref());
    Ok(v1::GetStatusResponse {
        deployments: deployments.into_iter().map(Into::into).collect(),
        hosts: hosts.into_iter().map(Into::into).collect(),
    })
}
