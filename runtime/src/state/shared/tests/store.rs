//! The object store of a simulation: what is asked takes effect some time later, or never, and the answer comes
//! some time after that, or never, whatever became of whoever asked.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use futures::future::FutureExt;
use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use tokio::sync::oneshot;

use super::world::World;

#[derive(Debug, Clone)]
pub(super) struct FakeStore {
    world: World,
    objects: Arc<InMemory>,
    calm: Arc<AtomicBool>,
}

impl FakeStore {
    pub(super) fn new(world: World) -> Self {
        Self { world, objects: Arc::new(InMemory::new()), calm: Arc::new(AtomicBool::new(false)) }
    }

    /// From now on nothing fails.
    pub(super) fn calm(&self) {
        self.calm.store(true, Ordering::SeqCst);
    }

    /// The paths of all objects.
    pub(super) fn paths(&self) -> Vec<String> {
        let listed = self.objects.list(None).map_ok(|meta| meta.location.to_string()).try_collect();
        let mut paths: Vec<String> = listed.now_or_never().expect("memory answers at once").expect("a list");
        paths.sort();
        paths
    }

    async fn operate<T: Send + 'static>(
        &self,
        what: String,
        effect: impl FnOnce(&InMemory) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let calm = self.calm.load(Ordering::SeqCst);
        let slow = !calm && self.world.one_in(12);
        let delay = || 1 + if slow { self.world.below(4000) } else { self.world.below(25) };
        let (before, after) = (delay(), delay());
        let fails_before = !calm && self.world.one_in(25);
        let fails_after = !calm && self.world.one_in(25);
        let is_lost = !calm && self.world.one_in(60);
        let (sender, answer) = oneshot::channel();
        let (world, objects) = (self.world.clone(), Arc::clone(&self.objects));
        self.world.after(before, move || {
            let result = if fails_before { Err(failure("it was refused")) } else { effect(&objects) };
            world.note(&format!("{what}: {}", if result.is_ok() { "done" } else { "not done" }));
            let result = if fails_after { Err(failure("the answer was an error")) } else { result };
            // A lost answer's sender lives until long after everybody has given up.
            let wait = if is_lost { 3_600_000 } else { after };
            world.after(wait, move || drop(sender.send(result)));
        });
        answer.await.unwrap_or_else(|_| Err(failure("it was dropped")))
    }
}

fn failure(reason: &'static str) -> Error {
    Error::Generic { store: "fake", source: reason.into() }
}

fn at_once<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("memory answers at once")
}

impl fmt::Display for FakeStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FakeStore")
    }
}

#[async_trait]
impl ObjectStore for FakeStore {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let path = path.clone();
        self.operate(format!("put {path}"), move |objects| at_once(objects.put_opts(&path, payload, options)))
            .await
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(failure("only whole objects are put"))
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        let path = path.clone();
        self.operate(format!("get {path}"), move |objects| at_once(objects.get_opts(&path, options))).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let this = self.clone();
        paths
            .then(move |path| {
                let this = this.clone();
                async move {
                    let path = path?;
                    let gone = path.clone();
                    let delete = move |objects: &InMemory| at_once(objects.delete(&gone));
                    this.operate(format!("delete {path}"), delete).await?;
                    Ok(path)
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (this, prefix) = (self.clone(), prefix.cloned());
        let listed = async move {
            let list =
                move |objects: &InMemory| at_once(objects.list(prefix.as_ref()).try_collect::<Vec<_>>());
            let listed = this.operate("list".to_owned(), list).await?;
            Ok::<_, Error>(futures::stream::iter(listed.into_iter().map(Ok)))
        };
        futures::stream::once(listed).try_flatten().boxed()
    }

    async fn list_with_delimiter(&self, _: Option<&Path>) -> Result<ListResult> {
        Err(failure("nothing is listed by folders"))
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(failure("nothing is copied"))
    }
}
