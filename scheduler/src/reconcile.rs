//! The `ReconcileLoop`: documents and reports → plan → documents, again on every change and now and then
//! without one. It keeps nothing of its own: killed at any point and started again, it goes on from what is
//! stored, and a settled world stays as it is.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{FutureExt as _, StreamExt as _};
use hvm_api::ErrorKind;
use serde::Serialize;

use crate::core::{Core, Published};
use crate::documents::{LoadError, Versioned, World, encode, key};
use crate::failure::line_of;
use crate::planner::{Finish, Plan, plan};
use crate::store::{
    ChangeStream, MAX_OPERATIONS, MAX_TRANSACTION_BYTES, Revision, StoreError, Transaction, Write,
};
use crate::view;

/// Longest time between two rounds.
const PERIOD: Duration = Duration::from_secs(10);
/// Pause after a store that failed.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// Most rounds that write, one right after the other. A plan of what a plan has made is empty, so only
/// changes from outside lead to a second.
const MAX_BUSY_ROUNDS: u32 = 32;

/// The documents as they are, and what becomes of them.
struct Followed {
    world: World,
    changes: ChangeStream,
}

/// Runs until it is told to stop.
pub(crate) async fn run(core: Arc<Core>, world: World) {
    let stop = core.stop.clone();
    let mut world = Some(world);
    loop {
        let session = async {
            let world = match world.take() {
                Some(world) => world,
                None => World::load(&*core.store).await?,
            };
            let changes = core.store.watch("", world.revision).await?;
            follow(&core, Followed { world, changes }).await
        };
        let ended: Result<(), LoadError> = tokio::select! {
            ended = session => ended,
            () = stop.cancelled() => return,
        };
        if let Err(error) = ended {
            tracing::warn!(error = line_of(&error), "planning stopped, and begins again");
        }
        tokio::select! {
            () = tokio::time::sleep(RETRY_PAUSE) => {}
            () = stop.cancelled() => return,
        }
    }
}

async fn follow(core: &Core, mut followed: Followed) -> Result<(), LoadError> {
    let mut reports = core.observations.changes();
    let mut busy_rounds = 0;
    loop {
        publish(core, &followed.world);
        let observed = core.observations.all();
        let next = plan(&view::plan_input(&followed.world, &observed));
        match execute(core, &followed.world, &next).await {
            Ok(Some(written)) => {
                while followed.world.revision < written {
                    followed.take_changes().await?;
                }
                busy_rounds += 1;
                if busy_rounds < MAX_BUSY_ROUNDS {
                    continue;
                }
                tracing::warn!(busy_rounds, "planning does not settle: pausing");
                tokio::time::sleep(RETRY_PAUSE).await;
            }
            Ok(None) => {}
            // Somebody else wrote: what they wrote is on its way here.
            Err(error) if error.kind() == ErrorKind::Conflict => tracing::debug!(%error, "planned anew"),
            Err(error) => return Err(error.into()),
        }
        busy_rounds = 0;
        tokio::select! {
            taken = followed.take_changes() => taken?,
            _ = reports.changed() => {}
            () = tokio::time::sleep(PERIOD) => {}
        }
    }
}

impl Followed {
    /// Waits for a change and takes in all that have come.
    async fn take_changes(&mut self) -> Result<(), LoadError> {
        let mut next = self.changes.next().await;
        loop {
            match next {
                Some(change) => self.world.apply(change?)?,
                None => return Err(StoreError::unavailable("watch", "it ended").into()),
            }
            match self.changes.next().now_or_never() {
                Some(more) => next = more,
                None => return Ok(()),
            }
        }
    }
}

/// Shows the documents to the services.
pub(crate) fn publish(core: &Core, world: &World) {
    let routing = view::routing_table(world);
    core.published.send_modify(|published| {
        published.world = Arc::new(world.clone());
        if *published.routing != routing {
            published.routing = Arc::new(routing);
        }
    });
}

/// What is shown before anything is.
pub(crate) fn first_published(world: &World) -> Published {
    Published { world: Arc::new(world.clone()), routing: Arc::new(view::routing_table(world)) }
}

/// Writes a plan: first the epochs it uses, then one transaction per host, those that only lose replicas
/// first, then the ends of stopped deployments. Returns the last revision written.
async fn execute(core: &Core, world: &World, plan: &Plan) -> Result<Option<Revision>, StoreError> {
    let mut last = None;
    let mut batch = Batch::default();
    for (group, document) in &plan.ownership {
        let known = world.ownership.get(group).map(|known| known.revision);
        if batch.is_full_with(document) {
            last = Some(core.store.transact(std::mem::take(&mut batch).transaction).await?);
        }
        batch.put(key::ownership(group), known, document);
    }
    if !batch.transaction.writes.is_empty() {
        last = Some(core.store.transact(batch.transaction).await?);
    }
    let gains = |host| {
        let known = world.hosts.get(host).and_then(|record| record.assignments.as_ref());
        plan.assignments[host].len() > known.map_or(0, |document| document.value.len())
    };
    let mut hosts: Vec<_> = plan.assignments.keys().collect();
    hosts.sort_by_key(|host| gains(host));
    for host in hosts {
        let known = world.hosts.get(host).and_then(|record| record.assignments.as_ref());
        let mut batch = Batch::default();
        batch.put(
            key::host(host, key::ASSIGNMENTS),
            known.map(|k: &Versioned<_>| k.revision),
            &plan.assignments[host],
        );
        last = Some(core.store.transact(batch.transaction).await?);
    }
    for stop in &plan.stops {
        let Finish::Done { deployment } = stop else { continue };
        let key = key::deployment(deployment);
        let known = world.deployments.get(deployment).map(|document| document.revision);
        let transaction =
            Transaction { expects: vec![(key.clone(), known)], writes: vec![Write::Delete { key }] };
        last = Some(core.store.transact(transaction).await?);
        tracing::info!(%deployment, "stopped: no host has anything of it");
    }
    Ok(last)
}

/// Documents that are written together.
#[derive(Default)]
struct Batch {
    transaction: Transaction,
    bytes: usize,
}

impl Batch {
    fn is_full_with(&self, document: &impl Serialize) -> bool {
        !self.transaction.writes.is_empty()
            && (self.transaction.writes.len() >= MAX_OPERATIONS
                || self.bytes + encode(document).len() + crate::store::MAX_KEY_BYTES > MAX_TRANSACTION_BYTES)
    }

    fn put(&mut self, key: String, known: Option<Revision>, document: &impl Serialize) {
        let value = Bytes::from(encode(document));
        self.bytes += key.len() + value.len();
        self.transaction.expects.push((key.clone(), known));
        self.transaction.writes.push(Write::Put { key, value, lease: None });
    }
}
