//! A scheduler without a mind: it hands out the documents and images that a test gave it, and keeps what
//! agents report.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use futures::{Stream, StreamExt as _, stream};
use hvm_api::v1;
use hvm_api::v1::control_server::{Control, ControlServer};
use hvm_api::v1::host_control_server::{HostControl, HostControlServer};
use hvm_types::{Digest, HostDocument, ReplicaReport, ReplicaState};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use super::image::Image;

/// Bytes of a blob in one message: small, so that a blob takes several.
const CHUNK_BYTES: usize = 4 << 10;

/// What is known of one host.
#[derive(Clone, Default)]
pub(crate) struct Reported {
    pub(crate) replicas: Vec<ReplicaReport>,
    pub(crate) applied: u64,
    /// The number of the last report that was taken.
    pub(crate) number: u64,
    /// How many reports spoke of everything, of a change, and of nothing.
    pub(crate) whole: u32,
    pub(crate) changes: u32,
    pub(crate) heartbeats: u32,
}

impl Reported {
    /// Takes a report in as the scheduler does. `false` where it comes after one that is not here.
    fn take(
        &mut self,
        number: u64,
        after: u64,
        applied: u64,
        replicas: Vec<ReplicaReport>,
        gone: &[String],
    ) -> bool {
        if after == 0 {
            (self.replicas, self.whole) = (replicas, self.whole + 1);
        } else if after != self.number {
            return false;
        } else if replicas.is_empty() && gone.is_empty() {
            self.heartbeats += 1;
        } else {
            self.changes += 1;
            let is_new = |one: &ReplicaReport| replicas.iter().any(|new| new.replica == one.replica);
            self.replicas.retain(|one| !is_new(one) && !gone.contains(&one.replica.to_string()));
            self.replicas.extend(replicas);
        }
        (self.number, self.applied) = (number, applied);
        true
    }

    pub(crate) fn state(&self, replica: &str) -> Option<&ReplicaState> {
        self.find(replica).map(|report| &report.state)
    }

    pub(crate) fn find(&self, replica: &str) -> Option<&ReplicaReport> {
        self.replicas.iter().find(|report| report.replica.to_string() == replica)
    }

    pub(crate) fn all_ready(&self, count: usize, generation: u64) -> bool {
        self.replicas.len() == count
            && self.replicas.iter().all(|report| {
                report.state.serves() && report.generation.0 == generation && report.next.is_none()
            })
    }
}

type Documents = BTreeMap<String, watch::Sender<Option<HostDocument>>>;

#[derive(Clone, Default)]
struct Content {
    documents: Arc<Mutex<Documents>>,
    images: Arc<Mutex<BTreeMap<Digest, Image>>>,
    /// Blobs whose bytes arrive with one bit wrong.
    damaged: Arc<Mutex<Vec<Digest>>>,
    /// Blobs whose stream breaks off half-way, each once.
    broken_off: Arc<Mutex<Vec<Digest>>>,
    /// Whether it never answers who asks for an image.
    hangs: Arc<AtomicBool>,
    /// Offsets that were asked for, by blob.
    offsets: Arc<Mutex<Vec<(Digest, u64)>>>,
    reported: watch::Sender<BTreeMap<String, Reported>>,
}

/// A running scheduler; its content outlives it.
pub(crate) struct Scheduler {
    content: Content,
    address: SocketAddr,
    server: Option<JoinHandle<()>>,
}

impl Scheduler {
    pub(crate) async fn start() -> Self {
        let mut scheduler = Self {
            content: Content::default(),
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            server: None,
        };
        scheduler.resume().await;
        scheduler
    }

    /// Listens again, where it listened before.
    pub(crate) async fn resume(&mut self) {
        let listener = TcpListener::bind(self.address).await.expect("a free port");
        self.address = listener.local_addr().expect("an address");
        let server = tonic::transport::Server::builder()
            .add_service(HostControlServer::new(self.content.clone()))
            .add_service(ControlServer::new(self.content.clone()))
            .serve_with_incoming(TcpIncoming::from(listener));
        self.server = Some(tokio::spawn(async move { server.await.expect("it serves") }));
    }

    /// Ends it as a kill would: all connections break.
    pub(crate) async fn kill(&mut self) {
        if let Some(server) = self.server.take() {
            server.abort();
            let _ = server.await; // it was aborted
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn put_image(&self, image: &Image) {
        self.content.images.lock().expect("not poisoned").insert(image.manifest(), image.clone());
    }

    pub(crate) fn damage(&self, digests: Vec<Digest>) {
        *self.content.damaged.lock().expect("not poisoned") = digests;
    }

    pub(crate) fn hang_images(&self) {
        self.content.hangs.store(true, Ordering::Relaxed);
    }

    pub(crate) fn break_off_once(&self, digest: Digest) {
        self.content.broken_off.lock().expect("not poisoned").push(digest);
    }

    pub(crate) fn offsets(&self, digest: Digest) -> Vec<u64> {
        let offsets = self.content.offsets.lock().expect("not poisoned");
        offsets.iter().filter(|(other, _)| *other == digest).map(|(_, offset)| *offset).collect()
    }

    /// Forgets what a host reported, as a scheduler does that starts again.
    pub(crate) fn forget_reports(&self, host: &str) {
        self.content.reported.send_modify(|all| drop(all.remove(host)));
    }

    pub(crate) fn put_document(&self, host: &str, document: HostDocument) {
        self.content.document(host).send_replace(Some(document));
    }

    /// Waits until a host's report satisfies `is_met`, and returns it.
    pub(crate) async fn reported(&self, host: &str, is_met: impl Fn(&Reported) -> bool) -> Reported {
        let mut reported = self.content.reported.subscribe();
        let met = reported.wait_for(|all| all.get(host).is_some_and(&is_met));
        let met = tokio::time::timeout(super::host::PATIENCE, met).await;
        let now = || self.content.reported.borrow().get(host).map(|reported| reported.replicas.clone());
        match met {
            Ok(Ok(all)) => all.get(host).cloned().expect("it was there"),
            _ => panic!("the host never reported what was expected; its last report is {:#?}", now()),
        }
    }
}

impl Content {
    fn document(&self, host: &str) -> watch::Sender<Option<HostDocument>> {
        let mut documents = self.documents.lock().expect("not poisoned");
        documents.entry(host.to_owned()).or_insert_with(|| watch::Sender::new(None)).clone()
    }
}

type BoxStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl HostControl for Content {
    type WatchDocumentStream = BoxStream<v1::HostDocument>;

    async fn join(&self, request: Request<v1::JoinRequest>) -> Result<Response<v1::JoinResponse>, Status> {
        let request = request.into_inner();
        assert!(!request.data_id.is_empty(), "an agent tells its data directory");
        assert!(request.host.is_some_and(|host| host.cpu_mhz > 0 && host.memory_mb > 0));
        Ok(Response::new(v1::JoinResponse { lease_millis: 5000 }))
    }

    async fn watch_document(
        &self,
        request: Request<v1::WatchDocumentRequest>,
    ) -> Result<Response<Self::WatchDocumentStream>, Status> {
        let mut receiver = self.document(&request.into_inner().host).subscribe();
        receiver.mark_changed();
        let documents = stream::unfold(receiver, |mut receiver| async move {
            loop {
                receiver.changed().await.ok()?;
                let document = receiver.borrow_and_update().clone();
                if let Some(document) = document {
                    return Some((Ok(document.into()), receiver));
                }
            }
        });
        Ok(Response::new(Box::pin(documents)))
    }

    async fn report(
        &self,
        request: Request<v1::ReportRequest>,
    ) -> Result<Response<v1::ReportResponse>, Status> {
        let request = request.into_inner();
        let replicas: Result<Vec<ReplicaReport>, _> =
            request.replicas.into_iter().map(TryInto::try_into).collect();
        let replicas = replicas.map_err(|error| Status::invalid_argument(error.to_string()))?;
        let applied = request.applied.unwrap_or(0);
        let mut taken = true;
        self.reported.send_modify(|all| {
            let reported = all.entry(request.host.clone()).or_default();
            taken = reported.take(request.number, request.after, applied, replicas, &request.gone);
        });
        Ok(Response::new(v1::ReportResponse { known: true, wants_everything: !taken }))
    }
}

macro_rules! not_offered {
    ($($method:ident($request:ty) -> $response:ty;)*) => {$(
        fn $method<'life0, 'async_trait>(
            &'life0 self,
            _request: Request<$request>,
        ) -> Pin<Box<dyn Future<Output = Result<Response<$response>, Status>> + Send + 'async_trait>>
        where
            'life0: 'async_trait,
            Self: 'async_trait,
        {
            Box::pin(async { Err(Status::unimplemented("no agent calls this")) })
        }
    )*};
}

#[tonic::async_trait]
impl Control for Content {
    type GetBlobStream = BoxStream<v1::BlobChunk>;

    async fn get_image(&self, request: Request<v1::GetImageRequest>) -> Result<Response<v1::Image>, Status> {
        if self.hangs.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        let manifest: Digest = request.into_inner().manifest.parse().expect("a digest");
        let images = self.images.lock().expect("not poisoned");
        let image = images.get(&manifest).ok_or_else(|| Status::not_found("there is no such image"))?;
        Ok(Response::new(image.document.clone().into()))
    }

    async fn get_blob(
        &self,
        request: Request<v1::GetBlobRequest>,
    ) -> Result<Response<Self::GetBlobStream>, Status> {
        let request = request.into_inner();
        let digest: Digest = request.digest.parse().expect("a digest");
        self.offsets.lock().expect("not poisoned").push((digest, request.offset));
        let mut bytes = {
            let images = self.images.lock().expect("not poisoned");
            let blob = images.values().flat_map(|image| &image.blobs).find(|(blob, _)| blob.digest == digest);
            blob.map(|(_, bytes)| bytes.clone()).ok_or_else(|| Status::not_found("there is no such blob"))?
        };
        if self.damaged.lock().expect("not poisoned").contains(&digest) {
            bytes[0] ^= 1;
        }
        let offset = usize::try_from(request.offset).expect("small");
        let mut chunks: Vec<Result<v1::BlobChunk, Status>> = bytes[offset..]
            .chunks(CHUNK_BYTES)
            .map(|chunk| Ok(v1::BlobChunk { data: chunk.to_vec() }))
            .collect();
        let mut broken_off = self.broken_off.lock().expect("not poisoned");
        if let Some(at) = broken_off.iter().position(|other| *other == digest) {
            broken_off.remove(at);
            chunks.truncate(chunks.len() / 2);
            chunks.push(Err(Status::unavailable("the connection broke")));
        }
        Ok(Response::new(stream::iter(chunks).boxed()))
    }

    not_offered! {
        find_missing_blobs(v1::FindMissingBlobsRequest) -> v1::FindMissingBlobsResponse;
        put_blob(tonic::Streaming<v1::PutBlobRequest>) -> v1::PutBlobResponse;
        put_image(v1::Image) -> v1::PutImageResponse;
        list_images(v1::ListImagesRequest) -> v1::ListImagesResponse;
        plan(v1::DeployRequest) -> v1::PlanResponse;
        deploy(v1::DeployRequest) -> v1::DeployResponse;
        stop(v1::StopRequest) -> v1::StopResponse;
        get_status(v1::GetStatusRequest) -> v1::GetStatusResponse;
    }
}
