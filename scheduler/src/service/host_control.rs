//! What agents call.

use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use hvm_api::v1::host_control_server::HostControl;
use hvm_api::{ErrorKind, Failure, InvalidField, v1};
use hvm_types::{HostId, HostSpec, ReplicaId, ReplicaReport};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use crate::core::{Core, Published};
use crate::documents::{AliveDocument, DataDocument, Home, World, decode, encode, key};
use crate::failure::IntoFailure as _;
use crate::observations::Changed;
use crate::planner::Observation;
use crate::store::{Entry, LeaseId, Revision, StoreError, Transaction, Write};
use crate::view;

/// How often a change is tried again that lost against another.
const MAX_ATTEMPTS: u32 = 8;

/// The service `HostControl`.
#[derive(Clone)]
pub(super) struct HostControlService {
    pub(super) core: Arc<Core>,
}

fn host_id(text: &str) -> Result<HostId, Failure> {
    text.parse().map_err(|reason| Failure::new(ErrorKind::Invalid, InvalidField::new("host", reason)))
}

#[async_trait::async_trait]
impl HostControl for HostControlService {
    type WatchDocumentStream = BoxStream<'static, Result<v1::HostDocument, Status>>;

    async fn join(&self, request: Request<v1::JoinRequest>) -> Result<Response<v1::JoinResponse>, Status> {
        let v1::JoinRequest { host, data_id } = request.into_inner();
        let host = host.ok_or_else(|| InvalidField::new("host", "it is missing"))?;
        let spec = HostSpec::try_from(host).map_err(|error| error.within("host"))?;
        check_addresses(&spec)?;
        join(&self.core, &spec, data_id).await?;
        let lease_millis = u64::try_from(self.core.lease_ttl.as_millis()).unwrap_or(u64::MAX);
        Ok(Response::new(v1::JoinResponse { lease_millis }))
    }

    async fn watch_document(
        &self,
        request: Request<v1::WatchDocumentRequest>,
    ) -> Result<Response<Self::WatchDocumentStream>, Status> {
        let host = host_id(&request.into_inner().host)?;
        let spec = self.core.store.get(&key::host(&host, key::SPEC)).await;
        if spec.map_err(|error| error.into_failure())?.is_none() {
            let line = format!("host {host} has not joined; join first");
            return Err(Failure::new(ErrorKind::NotFound, line).into());
        }
        let documents = Documents { host, published: self.core.published.subscribe(), sent: None };
        let documents = futures::stream::unfold(documents, next_document);
        let stop = self.core.stop.clone();
        Ok(Response::new(documents.take_until(async move { stop.cancelled().await }).boxed()))
    }

    async fn report(
        &self,
        request: Request<v1::ReportRequest>,
    ) -> Result<Response<v1::ReportResponse>, Status> {
        let v1::ReportRequest { host, replicas, applied, number, after, gone } = request.into_inner();
        let host = host_id(&host)?;
        let read = |(i, report)| {
            ReplicaReport::try_from(report)
                .map_err(|error: InvalidField| error.within(format!("replicas[{i}]")))
        };
        let replicas = replicas.into_iter().enumerate().map(read).collect::<Result<Vec<_>, _>>()?;
        let read = |text: &String| text.parse().map_err(|reason| InvalidField::new("gone", reason));
        let gone = gone.iter().map(read).collect::<Result<Vec<ReplicaId>, _>>()?;
        let applied = applied.unwrap_or(0);
        if !renew(&self.core, &host).await? {
            return Ok(Response::new(v1::ReportResponse { known: false, wants_everything: false }));
        }
        let observations = &self.core.observations;
        let taken = if after == 0 {
            observations.report(&host, number, Observation::new(applied, replicas));
            true
        } else {
            observations.report_changed(&host, number, Changed { after, applied, replicas, gone })
        };
        Ok(Response::new(v1::ReportResponse { known: true, wants_everything: !taken }))
    }
}

fn check_addresses(spec: &HostSpec) -> Result<(), InvalidField> {
    for (field, address) in [("host.ingress", &spec.ingress), ("host.api", &spec.api)] {
        let port = address.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
        if !matches!(port, Some(Ok(port)) if port > 0) {
            return Err(InvalidField::new(field, format!("`{address}` is no address: write host:port")));
        }
    }
    Ok(())
}

/// Makes a host known, and alive for the time of a lease.
async fn join(core: &Core, spec: &HostSpec, data_id: String) -> Result<(), Failure> {
    let mut attempt = 1;
    loop {
        match try_join(core, spec, &data_id).await? {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::Conflict && attempt < MAX_ATTEMPTS => attempt += 1,
            // The lease ended between its renewal and its use.
            Err(StoreError::LeaseExpired { .. }) if attempt < MAX_ATTEMPTS => attempt += 1,
            Err(error) => return Err(error.into_failure()),
        }
    }
}

async fn try_join(core: &Core, spec: &HostSpec, data_id: &str) -> Result<Result<(), StoreError>, Failure> {
    let id = &spec.id;
    let spec_key = key::host(id, key::SPEC);
    let alive_key = key::host(id, key::ALIVE);
    let known_spec = core.store.get(&spec_key).await.map_err(|error| error.into_failure())?;
    let known_alive = core.store.get(&alive_key).await.map_err(|error| error.into_failure())?;
    let data_key = key::host(id, key::DATA);
    let known_data = core.store.get(&data_key).await.map_err(|error| error.into_failure())?;
    if let Some(entry) = &known_alive {
        refuse_second_agent(core, id, entry, data_id)?;
    } else {
        core.observations.forget(id);
    }
    refuse_other_state(core, spec, known_spec.as_ref(), known_data.as_ref(), data_id).await?;
    let mut lease = known_alive.as_ref().and_then(|entry| entry.lease);
    if let Some(held) = lease
        && core.store.renew_lease(held).await.is_err()
    {
        lease = None;
    }
    let renewed = lease.is_some();
    let lease = match lease {
        Some(lease) => lease,
        None => core.store.grant_lease(core.lease_ttl).await.map_err(|error| error.into_failure())?,
    };
    let spec_bytes = Bytes::from(encode(spec));
    let alive_bytes = Bytes::from(encode(&AliveDocument { data_id: data_id.to_owned() }));
    let same = |known: &Option<Entry>, bytes: &Bytes| known.as_ref().is_some_and(|e| e.value == *bytes);
    let mut transaction = Transaction::default();
    let mut put = |key: String, known: &Option<Entry>, value: Bytes, lease: Option<LeaseId>| {
        transaction
            .expects
            .push((key.clone(), known.as_ref().map(|entry: &Entry| -> Revision { entry.revision })));
        transaction.writes.push(Write::Put { key, value, lease });
    };
    if !same(&known_spec, &spec_bytes) {
        put(spec_key, &known_spec, spec_bytes, None);
    }
    let data_bytes = Bytes::from(encode(&DataDocument { data_id: data_id.to_owned() }));
    if !data_id.is_empty() && !same(&known_data, &data_bytes) {
        put(data_key, &known_data, data_bytes, None);
    }
    if !renewed || !same(&known_alive, &alive_bytes) {
        put(alive_key, &known_alive, alive_bytes, Some(lease));
    }
    if !transaction.writes.is_empty()
        && let Err(error) = core.store.transact(transaction).await
    {
        return Ok(Err(error));
    }
    core.leases.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone(), lease);
    Ok(Ok(()))
}

/// Two agents under one name would be two writers of each partition.
fn refuse_second_agent(core: &Core, id: &HostId, alive: &Entry, data_id: &str) -> Result<(), Failure> {
    let known: AliveDocument = decode(&alive.key, &alive.value).map_err(|error| error.into_failure())?;
    if known.data_id.is_empty() || data_id.is_empty() || known.data_id == data_id {
        return Ok(());
    }
    let line = format!(
        "host id {id} is in use by an agent with another data directory; give each agent an id of its own, \
         or wait {:?} after stopping the other",
        core.lease_ttl
    );
    Err(Failure::new(ErrorKind::Conflict, line))
}

/// State does not come along to another data directory or store: its partitions would be opened empty, and a second
/// time in one epoch while the first agent still serves out of the scheduler's sight.
async fn refuse_other_state(
    core: &Core,
    spec: &HostSpec,
    known_spec: Option<&Entry>,
    known_data: Option<&Entry>,
    data_id: &str,
) -> Result<(), Failure> {
    let has_other_data = match known_data {
        Some(entry) => {
            let known: DataDocument =
                decode(&entry.key, &entry.value).map_err(|error| error.into_failure())?;
            !data_id.is_empty() && known.data_id != data_id
        }
        None => false,
    };
    let has_other_store = match known_spec {
        Some(entry) => {
            let known: HostSpec = decode(&entry.key, &entry.value).map_err(|error| error.into_failure())?;
            known.store != spec.store
        }
        None => false,
    };
    if !has_other_data && !has_other_store {
        return Ok(());
    }
    let id = &spec.id;
    let world = World::load(&*core.store).await.map_err(|error| error.into_failure())?;
    let is_out_of_reach = |home: &Home| match &home.store {
        None => has_other_data || spec.store.is_some(),
        Some(store) => spec.store.as_ref() != Some(store),
    };
    let Some(home) = world.homes_of(id).find(|home| is_out_of_reach(home)) else {
        if has_other_store && world.has_purges(id) {
            let line = format!(
                "host id {id} still has to delete state in another store; start the agent with the store that it had, \
                 or give this one an id of its own"
            );
            return Err(Failure::new(ErrorKind::Conflict, line));
        }
        return Ok(());
    };
    let line = match &home.store {
        None if has_other_data => format!(
            "host id {id} belongs to another data directory, which holds the state of partitions; start the agent \
             with that directory, or give this one an id of its own (`hvm stop NAME --purge` gives state up)"
        ),
        None => format!(
            "host id {id} has state of partitions on its own disk; start the agent without a state store, or give \
             it another id and data directory"
        ),
        Some(store) => format!(
            "host id {id} has state of partitions in store {}; start the agent with that store, or give it \
             another id and data directory",
            store.short()
        ),
    };
    Err(Failure::new(ErrorKind::Conflict, line))
}

/// Renews a host's lease. `false` where it has none: it must join.
async fn renew(core: &Core, host: &HostId) -> Result<bool, Failure> {
    let known = core.leases.lock().unwrap_or_else(PoisonError::into_inner).get(host).copied();
    let lease = match known {
        Some(lease) => Some(lease),
        None => {
            let alive = core.store.get(&key::host(host, key::ALIVE)).await;
            alive.map_err(|error| error.into_failure())?.and_then(|entry| entry.lease)
        }
    };
    let Some(lease) = lease else { return Ok(false) };
    match core.store.renew_lease(lease).await {
        Ok(()) => {
            core.leases.lock().unwrap_or_else(PoisonError::into_inner).insert(host.clone(), lease);
            Ok(true)
        }
        Err(StoreError::LeaseExpired { .. }) => {
            core.leases.lock().unwrap_or_else(PoisonError::into_inner).remove(host);
            Ok(false)
        }
        Err(error) => Err(error.into_failure()),
    }
}

/// The documents of one host, as they change.
struct Documents {
    host: HostId,
    published: watch::Receiver<Published>,
    sent: Option<hvm_types::HostDocument>,
}

async fn next_document(mut documents: Documents) -> Option<(Result<v1::HostDocument, Status>, Documents)> {
    loop {
        let Published { world, routing } = documents.published.borrow_and_update().clone();
        let document = view::host_document(&world, &routing, &documents.host);
        if document.is_some() && document != documents.sent {
            documents.sent.clone_from(&document);
            return Some((Ok(document?.into()), documents));
        }
        documents.published.changed().await.ok()?;
    }
}
