//! A scheduler on a port of its own, agents that obey on demand, and an image without any code in it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use hvm_api::v1::control_client::ControlClient;
use hvm_api::v1::host_control_client::HostControlClient;
use hvm_api::v1::put_blob_request::Part;
use hvm_api::{Failure, v1};
use hvm_scheduler::{Scheduler, SchedulerConfig, SchedulerHandle};
use hvm_types::{
    Capability, CpuMhz, DeploymentStatus, Digest, Epoch, Generation, HostDocument, HostSpec, HostStatus,
    ImageConfig, PackageConfig, ReplicaReport, ReplicaState,
};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic::Status;
use tonic::transport::Channel;

pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Longer than any test.
const LONG_LEASE: Duration = Duration::from_secs(3_600);

/// Waits until `done` says so.
pub(crate) async fn until<T>(what: &str, mut done: impl AsyncFnMut() -> Option<T>) -> T {
    let poll = async {
        loop {
            if let Some(value) = done().await {
                return value;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, poll).await.unwrap_or_else(|_| panic!("waited in vain: {what}"))
}

/// A scheduler and a client of it.
pub(crate) struct Town {
    pub(crate) handle: SchedulerHandle,
    pub(crate) control: ControlClient<Channel>,
    channel: Channel,
}

impl Town {
    pub(crate) async fn start(directory: &Path) -> Self {
        Self::start_with(directory, LONG_LEASE).await
    }

    pub(crate) async fn start_with(directory: &Path, lease: Duration) -> Self {
        Self::start_config(SchedulerConfig { lease, ..SchedulerConfig::new(directory) }).await
    }

    pub(crate) async fn start_config(config: SchedulerConfig) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let handle = Scheduler::start(config, listener).await.expect("the scheduler starts");
        let address = format!("http://{}", handle.address());
        let channel = Channel::from_shared(address).expect("an address").connect().await.expect("it listens");
        Self { handle, control: ControlClient::new(channel.clone()), channel }
    }

    pub(crate) async fn agent(&self, id: &str) -> FakeAgent {
        self.agent_with(host_spec(id)).await
    }

    pub(crate) async fn agent_with(&self, spec: HostSpec) -> FakeAgent {
        FakeAgent::join(self.channel.clone(), spec).await
    }

    pub(crate) fn hosts(&self) -> HostControlClient<Channel> {
        HostControlClient::new(self.channel.clone())
    }

    pub(crate) async fn push(&mut self, image: &FakeImage) {
        for bytes in &image.blobs {
            self.put_blob(bytes).await.expect("the blob is taken");
        }
        self.control.put_image(image.message()).await.expect("the image is taken");
    }

    pub(crate) async fn put_blob(&mut self, bytes: &[u8]) -> Result<(), Status> {
        let mut parts = vec![Part::Blob(blob(bytes))];
        parts.extend(bytes.chunks(100).map(|chunk| Part::Data(chunk.to_vec())));
        self.send(parts).await
    }

    pub(crate) async fn send(&mut self, parts: Vec<Part>) -> Result<(), Status> {
        let messages = parts.into_iter().map(|part| v1::PutBlobRequest { part: Some(part) });
        let messages: Vec<_> = messages.collect();
        self.control.put_blob(futures::stream::iter(messages)).await.map(drop)
    }

    pub(crate) fn request(image: &FakeImage, text: &str) -> v1::DeployRequest {
        v1::DeployRequest {
            file_name: "app.yaml".to_owned(),
            text: text.to_owned(),
            image: image.manifest.to_string(),
        }
    }

    pub(crate) async fn deploy(
        &mut self,
        image: &FakeImage,
        text: &str,
    ) -> Result<v1::DeployResponse, Failure> {
        let answer = self.control.deploy(Self::request(image, text)).await;
        answer.map(tonic::Response::into_inner).map_err(|status| Failure::from(&status))
    }

    pub(crate) async fn status(&mut self) -> (Vec<DeploymentStatus>, Vec<HostStatus>) {
        let answer = self.control.get_status(v1::GetStatusRequest::default()).await.expect("an answer");
        let v1::GetStatusResponse { deployments, hosts } = answer.into_inner();
        let deployments = deployments.into_iter().map(|d| d.try_into().expect("well-formed"));
        let hosts = hosts.into_iter().map(|host| host.try_into().expect("well-formed"));
        (deployments.collect(), hosts.collect())
    }

    pub(crate) async fn stop(&mut self, deployment: &str, purge: bool) {
        let request = v1::StopRequest { deployment: deployment.to_owned(), purge };
        self.control.stop(request).await.expect("it is there");
    }
}

pub(crate) fn blob(bytes: &[u8]) -> v1::Blob {
    v1::Blob { digest: Digest::of(bytes).to_string(), size: bytes.len() as u64 }
}

/// An agent that keeps the newest document and reports what it is told to.
pub(crate) struct FakeAgent {
    pub(crate) client: HostControlClient<Channel>,
    pub(crate) id: String,
    documents: watch::Receiver<Option<HostDocument>>,
    watching: JoinHandle<()>,
}

pub(crate) fn host_spec(id: &str) -> HostSpec {
    HostSpec {
        id: id.parse().expect("a valid name"),
        ingress: "127.0.0.1:8080".to_owned(),
        api: "127.0.0.1:8081".to_owned(),
        cpu: CpuMhz(8_000),
        memory: 4_000,
        attributes: [("zone".to_owned(), "a".to_owned())].into(),
        store: None,
    }
}

impl FakeAgent {
    async fn join(channel: Channel, spec: HostSpec) -> Self {
        let id = spec.id.as_str().to_owned();
        let mut client = HostControlClient::new(channel);
        let request = v1::JoinRequest { host: Some(spec.into()), data_id: format!("data of {id}") };
        client.join(request).await.expect("it may join");
        let request = v1::WatchDocumentRequest { host: id.clone() };
        let mut stream = client.watch_document(request).await.expect("it joined").into_inner();
        let (sender, documents) = watch::channel(None);
        let watching = tokio::spawn(async move {
            while let Ok(Some(document)) = stream.message().await {
                sender.send_replace(Some(HostDocument::try_from(document).expect("well-formed")));
            }
        });
        Self { client, id, documents, watching }
    }

    /// The document as last received.
    pub(crate) async fn document(&self) -> HostDocument {
        self.document_with("any", |_| true).await
    }

    /// The first document, from the last received on, that `is_right`.
    pub(crate) async fn document_with(
        &self,
        what: &str,
        is_right: impl Fn(&HostDocument) -> bool,
    ) -> HostDocument {
        let mut documents = self.documents.clone();
        let wait = documents.wait_for(|document| document.as_ref().is_some_and(&is_right));
        let found = tokio::time::timeout(PATIENCE, wait).await;
        let found = found.unwrap_or_else(|_| panic!("{} waited in vain: {what}", self.id));
        found.expect("the stream goes on").clone().expect("it is there")
    }

    /// Reports that all that the document says is done.
    pub(crate) async fn obey(&mut self) {
        let document = self.document().await;
        let reports = document.assignments.iter().map(|assignment| ReplicaReport {
            replica: assignment.replica.clone(),
            generation: assignment.generation,
            epoch: assignment.epoch,
            image: assignment.image,
            state: ReplicaState::Ready,
            next: None,
        });
        let reports = reports.collect();
        assert!(self.report(reports, document.version).await, "{} is not known", self.id);
    }

    pub(crate) async fn report(&mut self, reports: Vec<ReplicaReport>, applied: u64) -> bool {
        let request = v1::ReportRequest {
            host: self.id.clone(),
            replicas: reports.into_iter().map(Into::into).collect(),
            applied: Some(applied),
            ..v1::ReportRequest::default()
        };
        self.client.report(request).await.expect("an answer").into_inner().known
    }

    /// Goes away without a word.
    pub(crate) fn die(self) {
        self.watching.abort();
    }
}

impl Drop for FakeAgent {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

/// What a document assigns: replica index → generation and epoch.
pub(crate) fn owned(document: &HostDocument) -> BTreeMap<u32, (Generation, Epoch)> {
    let one = |a: &hvm_types::Assignment| (a.replica.index, (a.generation, a.epoch));
    document.assignments.iter().map(one).collect()
}

pub(crate) fn indexes(document: &HostDocument) -> BTreeSet<u32> {
    owned(document).into_keys().collect()
}

/// An image whose component is no component: the scheduler never looks.
pub(crate) struct FakeImage {
    pub(crate) manifest: Digest,
    pub(crate) config: Digest,
    pub(crate) index: String,
    pub(crate) blobs: Vec<Vec<u8>>,
}

impl FakeImage {
    /// App `shop` with the package `carts`, which asks for `capabilities`.
    pub(crate) fn new(version: &str, state_schema: u32, capabilities: &[Capability]) -> Self {
        let component = format!("component of {version}").into_bytes();
        let package = PackageConfig {
            component: Digest::of(&component),
            capabilities: capabilities.to_vec(),
            files: BTreeMap::new(),
        };
        let config = ImageConfig {
            app: "shop".parse().expect("a valid name"),
            version: version.parse().expect("a valid version"),
            state_schema,
            migrates_from: None,
            packages: [("carts".parse().expect("a valid name"), package)].into(),
        };
        Self::of(&config, &component)
    }

    pub(crate) fn of(config: &ImageConfig, component: &[u8]) -> Self {
        let config = serde_json::to_vec(config).expect("JSON");
        let manifest = format!(
            r#"{{"schemaVersion":2,"config":{{"digest":"{}"}},"layers":[{{"digest":"{}"}}]}}"#,
            Digest::of(&config),
            Digest::of(component),
        );
        let manifest = manifest.into_bytes();
        let index =
            format!(r#"{{"schemaVersion":2,"manifests":[{{"digest":"{}"}}]}}"#, Digest::of(&manifest));
        Self {
            manifest: Digest::of(&manifest),
            config: Digest::of(&config),
            index,
            blobs: vec![manifest, config, component.to_vec()],
        }
    }

    pub(crate) fn message(&self) -> v1::Image {
        v1::Image {
            manifest: self.manifest.to_string(),
            index: self.index.clone().into_bytes(),
            blobs: self.blobs.iter().map(|bytes| blob(bytes)).collect(),
            config: self.config.to_string(),
            ..v1::Image::default()
        }
    }
}

pub(crate) fn shop() -> FakeImage {
    FakeImage::new("1.0.0", 1, &[Capability::Keyvalue])
}

/// Deployment `shop`: `partitions` stateful carts.
pub(crate) fn carts(partitions: u32) -> String {
    format!(
        "deployment: shop
image: shop.aimg
jobs:
- name: shop
  groups:
  - name: carts
    partitions: {partitions}
    tasks:
    - name: carts
      driver: app-partition
      config: {{ package: carts }}
      env: {{ CURRENCY: EUR }}
      resources: {{ cpu: 100, memory: 16 }}
      grants: {{ keyvalue: [default] }}
    update: {{ max_parallel: 2 }}
routes:
- {{ match: {{ prefix: /carts }}, group: carts, key: {{ path_segment: 2 }} }}
"
    )
}

/// Deployment `front`: `replicas` copies without state.
pub(crate) fn front(replicas: u32) -> String {
    format!(
        "deployment: front
image: front.aimg
jobs:
- name: front
  groups:
  - name: web
    replicas: {replicas}
    tasks:
    - name: web
      driver: app-partition
      config: {{ package: carts }}
      resources: {{ cpu: 100, memory: 16 }}
routes:
- {{ match: {{ prefix: / }}, group: web }}
"
    )
}
