//! The `ReconcileLoop`: documents and reports → plan → documents, again on every change and now and then
//! without one. It keeps nothing of its own: killed at any point and started again, it goes on from what is
//! stored, and a settled world stays as it is.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{FutureExt as _, StreamExt as _};
use hvm_api::ErrorKind;
use hvm_types::DeploymentName;
use serde::Serialize;

use crate::core::{Core, Published};
use crate::documents::{GroupKey, LoadError, OwnershipDocument, Versioned, World, encode, key};
use crate::failure::line_of;
use crate::planner::{Finish, Plan, plan};
use crate::store::{
    ChangeStream, CoordinationStore, MAX_OPERATIONS, MAX_TRANSACTION_BYTES, Revision, StoreError,
    Transaction, Write,
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
    let mut published = None;
    loop {
        if published != Some(followed.world.revision) {
            publish(core, &followed.world);
            published = Some(followed.world.revision);
        }
        // Reports that come while nothing is planned change what was observed in place: it is not held then.
        let next = {
            let observed = core.observations.all();
            plan(&view::plan_input(&followed.world, &observed))
        };
        match execute(&*core.store, &followed.world, &next).await {
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
/// first, then the ends of stopped deployments: these forget where state lies, which is what the hosts' orders to
/// delete it are made from.
async fn execute(
    store: &dyn CoordinationStore,
    world: &World,
    plan: &Plan,
) -> Result<Option<Revision>, StoreError> {
    let ended: BTreeSet<&DeploymentName> = plan.stops.iter().filter_map(ended).collect();
    let (closing, used): (Vec<_>, Vec<_>) =
        plan.ownership.iter().partition(|(group, _)| ended.contains(&group.deployment));
    let mut last = write_ownership(store, world, used).await?;
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
        last = Some(store.transact(batch.transaction).await?);
    }
    last = write_ownership(store, world, closing).await?.or(last);
    for deployment in ended {
        let key = key::deployment(deployment);
        let known = world.deployments.get(deployment).map(|document| document.revision);
        let transaction =
            Transaction { expects: vec![(key.clone(), known)], writes: vec![Write::Delete { key }] };
        last = Some(store.transact(transaction).await?);
        tracing::info!(%deployment, "stopped: no host has anything of it");
    }
    Ok(last)
}

fn ended(stop: &Finish) -> Option<&DeploymentName> {
    match stop {
        Finish::Done { deployment } => Some(deployment),
        Finish::WaitsFor { .. } => None,
    }
}

async fn write_ownership(
    store: &dyn CoordinationStore,
    world: &World,
    documents: Vec<(&GroupKey, &OwnershipDocument)>,
) -> Result<Option<Revision>, StoreError> {
    let mut last = None;
    let mut batch = Batch::default();
    for (group, document) in documents {
        let known = world.ownership.get(group).map(|known| known.revision);
        if batch.is_full_with(document) {
            last = Some(store.transact(std::mem::take(&mut batch).transaction).await?);
        }
        batch.put(key::ownership(group), known, document);
    }
    if !batch.transaction.writes.is_empty() {
        last = Some(store.transact(batch.transaction).await?);
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use async_trait::async_trait;
    use hvm_types::deployment_file::{self, Format};
    use hvm_types::{Digest, Epoch, Generation, HostSpec};

    use super::*;
    use crate::documents::{Accepted, AssignmentDocument, DeploymentDocument, Home, Ownership, StopOrder};
    use crate::store::{EmbeddedStore, Entry, LeaseId, Listing};

    /// A store whose scheduler is killed after some writes.
    struct Killed(Arc<EmbeddedStore>, AtomicUsize);

    #[async_trait]
    impl CoordinationStore for Killed {
        async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
            self.0.get(key).await
        }

        async fn list(&self, prefix: &str) -> Result<Listing, StoreError> {
            self.0.list(prefix).await
        }

        async fn transact(&self, transaction: Transaction) -> Result<Revision, StoreError> {
            let left = self.1.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
            left.map_err(|_| StoreError::unavailable("reach", "killed"))?;
            self.0.transact(transaction).await
        }

        async fn watch(&self, prefix: &str, after: Revision) -> Result<ChangeStream, StoreError> {
            self.0.watch(prefix, after).await
        }

        async fn grant_lease(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
            self.0.grant_lease(ttl).await
        }

        async fn renew_lease(&self, lease: LeaseId) -> Result<(), StoreError> {
            self.0.renew_lease(lease).await
        }
    }

    fn name<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
        text.parse().expect("a valid name")
    }

    /// The deployment `d` with three partitions on the host `a`, which is lost; it is to be stopped and purged.
    fn lost_host_and_purge() -> Batch {
        let file = "deployment: d\nimage: x.aimg\njobs:\n- name: j\n  groups:\n  - name: g\n    partitions: 3\n    \
                    tasks:\n    - { name: t, driver: app-partition, config: { package: p } }\nroutes:\n\
                    - { match: { prefix: / }, group: g, key: { path_segment: 1 } }\n";
        let current = Accepted {
            generation: Generation(1),
            spec: deployment_file::parse(file, Format::of_file_name("d.yaml")).expect("a valid file"),
            image: Digest::of(b"image"),
            app: name("app"),
            version: semver::Version::new(1, 0, 0),
            state_schema: 1,
        };
        let stop = Some(StopOrder { purge: true });
        let host = HostSpec {
            id: name("a"),
            ingress: "127.0.0.1:1".to_owned(),
            api: "127.0.0.1:2".to_owned(),
            cpu: hvm_types::CpuMhz(1_000),
            memory: 1_000,
            attributes: BTreeMap::new(),
            store: None,
        };
        let group: GroupKey = name("d/g");
        let mut ownership = OwnershipDocument { epoch: Epoch(1), ..OwnershipDocument::default() };
        let mut assignments = AssignmentDocument::default();
        for index in 0..3 {
            ownership.set_home(index, 3, Home { host: host.id.clone(), store: None });
            assignments.assign(&group, index, Ownership { generation: Generation(1), epoch: Epoch(1) });
        }
        let mut batch = Batch::default();
        batch.put(key::deployment(&name("d")), None, &DeploymentDocument { current, earlier: vec![], stop });
        batch.put(key::ownership(&group), None, &ownership);
        batch.put(key::host(&host.id, key::SPEC), None, &host);
        batch.put(key::host(&host.id, key::ASSIGNMENTS), None, &assignments);
        batch
    }

    async fn round(store: &dyn CoordinationStore) -> Result<Option<Revision>, StoreError> {
        let world = World::load(store).await.expect("readable documents");
        let next = plan(&view::plan_input(&world, &BTreeMap::new()));
        execute(store, &world, &next).await
    }

    #[tokio::test]
    async fn a_lost_host_is_told_of_a_purge_after_whichever_write_the_scheduler_is_killed() {
        for writes in 0..5 {
            let directory = tempfile::tempdir().expect("a temporary directory");
            let store = Arc::new(EmbeddedStore::open(directory.path()).expect("the store opens"));
            store.transact(lost_host_and_purge().transaction).await.expect("written");
            let killed = Killed(Arc::clone(&store), AtomicUsize::new(writes));
            let _ = round(&killed).await; // it is killed in there
            while round(&*store).await.expect("written").is_some() {}
            let world = World::load(&*store).await.expect("readable documents");
            assert!(world.deployments.is_empty());
            let told = world.hosts[&name("a")].assignments.as_ref().expect("a document");
            assert_eq!(told.value.purge.get(&name("d/g")), Some(&(0..3).collect()), "after {writes} writes");
        }
    }
}
