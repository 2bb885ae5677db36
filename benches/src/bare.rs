//! The floor of everything in a guest: the same component in wasmtime alone, with WASI and HTTP but without mailbox,
//! deadline, limits, meters, log or state. `wasi:keyvalue` is a map in memory.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::BodyExt as _;
use tokio::sync::oneshot;
use wasmtime::component::{Component, ComponentType, Linker, Lower, Resource, ResourceTable, ResourceType};
use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Store, StoreContextMut,
};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::p2::bindings::http::types::Scheme;
use wasmtime_wasi_http::p2::bindings::{Proxy, ProxyPre};
use wasmtime_wasi_http::{
    Error, RequestOptions, WasiBody, WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks, WasiHttpView,
};

/// wasmtime with the settings of the HVM's engine.
pub struct Bare {
    /// Its engine.
    pub engine: Engine,
    /// All that guests may import.
    pub linker: Linker<Host>,
}

/// A component, ready to be instantiated.
#[derive(Clone)]
pub struct BareModule(ProxyPre<Host>);

/// An instance and its store.
pub struct BareInstance {
    store: Store<Host>,
    proxy: Proxy,
}

impl Bare {
    /// An engine with room for so many instances.
    pub fn new(instances: u32) -> Self {
        let engine = Engine::new(&config(instances)).expect("the settings of the HVM");
        let mut linker = Linker::new(&engine);
        wasmtime_wasi::p2::add_to_linker_async(&mut linker).expect("an empty linker");
        wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker).expect("no HTTP yet");
        add_keyvalue(&mut linker).expect("no state yet");
        add_uncalled(&mut linker).expect("none of them yet");
        Self { engine, linker }
    }

    /// # Panics
    /// Where the bytes are no component that handles requests.
    pub fn compile(&self, component: &[u8]) -> BareModule {
        let component = Component::new(&self.engine, component).expect("a sound component");
        let pre = self.linker.instantiate_pre(&component).expect("everything is linked");
        BareModule(ProxyPre::new(pre).expect("it handles requests"))
    }
}

/// As `runtime/src/engine.rs` builds it; where that changes, change this.
fn config(instances: u32) -> Config {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances)
        .total_core_instances(instances.saturating_mul(64))
        .total_memories(instances)
        .total_tables(instances.saturating_mul(4))
        .total_stacks(instances.saturating_add(64))
        .max_core_instances_per_component(64)
        .max_memories_per_component(4)
        .max_tables_per_component(8)
        .max_memories_per_module(4)
        .max_tables_per_module(8)
        .max_component_instance_size(1 << 20)
        .max_core_instance_size(1 << 20)
        .table_elements(65_536)
        .max_memory_size(4 << 30)
        .max_unused_warm_slots(instances.min(64))
        .linear_memory_keep_resident(1 << 20)
        .table_keep_resident(64 << 10)
        .async_stack_keep_resident(64 << 10)
        .pagemap_scan(Enabled::Auto);
    let mut config = Config::new();
    config
        .concurrency_support(false)
        .max_wasm_stack(1 << 20)
        .async_stack_size(2 << 20)
        .wasm_threads(false)
        .wasm_exceptions(false)
        .gc_support(false)
        .memory_init_cow(true)
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    config
}

impl BareModule {
    /// A fresh instance.
    ///
    /// # Panics
    /// Where the pool is full.
    pub async fn instantiate(&self) -> BareInstance {
        let mut store = Store::new(self.0.engine(), Host::default());
        let proxy = self.0.instantiate_async(&mut store).await.expect("the pool has room");
        BareInstance { store, proxy }
    }
}

impl BareInstance {
    /// Its whole answer to a request.
    ///
    /// # Panics
    /// Where the guest traps or gives no answer.
    pub async fn answer<B>(&mut self, request: Request<B>) -> Response<Bytes>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Error>,
    {
        let (sender, receiver) = oneshot::channel();
        let mut http = self.store.data_mut().http();
        let request = http.new_incoming_request(Scheme::Http, request).expect("a valid request");
        let head = http.new_response_outparam(sender).expect("room for one more resource");
        let call = self.proxy.wasi_http_incoming_handler().call_handle(&mut self.store, request, head);
        let read = async {
            let head = receiver.await.expect("an answer");
            let (head, body): (_, WasiBody) = head.expect("an answer that is no error").into_parts();
            Response::from_parts(head, body.collect().await.expect("a whole answer").to_bytes())
        };
        let (called, answer) = tokio::join!(call, read);
        called.expect("no trap");
        answer
    }
}

/// The host's side of an instance.
pub struct Host {
    table: ResourceTable,
    wasi: WasiCtx,
    http: WasiHttpCtx,
    hooks: NoCalls,
    state: BTreeMap<String, Vec<u8>>,
}

impl Default for Host {
    /// With nothing granted.
    fn default() -> Self {
        Self {
            table: ResourceTable::new(),
            wasi: WasiCtx::builder().build(),
            http: WasiHttpCtx::new(),
            hooks: NoCalls,
            state: BTreeMap::new(),
        }
    }
}

impl WasiView for Host {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for Host {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { ctx: &mut self.http, table: &mut self.table, hooks: &mut self.hooks }
    }
}

/// Refuses calls out.
struct NoCalls;

type Done = Box<dyn Future<Output = wasmtime_wasi_http::Result<()>> + Send>;
type Sent = wasmtime_wasi_http::Result<(Response<WasiBody>, Done)>;

impl WasiHttpHooks for NoCalls {
    fn send_request(
        &mut self,
        _request: Request<WasiBody>,
        _options: Option<RequestOptions>,
        _processed: Done,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        Box::new(async { Err(Error::HttpRequestDenied) })
    }
}

/// A handle to the one bucket.
struct Bucket;

/// `error` of `wasi:keyvalue/store`.
#[derive(ComponentType, Lower)]
#[component(variant)]
enum KeyvalueError {
    #[component(name = "no-such-store")]
    NoSuchStore,
    #[component(name = "access-denied")]
    #[expect(dead_code, reason = "part of the interface; the map denies nothing")]
    AccessDenied,
    #[component(name = "other")]
    #[expect(dead_code, reason = "part of the interface; the map never fails")]
    Other(String),
}

type Answer<T> = wasmtime::Result<(Result<T, KeyvalueError>,)>;

const KEYVALUE: &str = "wasi:keyvalue/store@0.2.0-draft";

/// The part of `wasi:keyvalue` that the benches call.
fn add_keyvalue(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    let mut store = linker.instance(KEYVALUE)?;
    store.resource("bucket", ResourceType::host::<Bucket>(), |_, _| Ok(()))?;
    store.func_wrap(
        "open",
        |_: StoreContextMut<'_, Host>, (name,): (String,)| -> Answer<Resource<Bucket>> {
            let bucket =
                if name == "default" { Ok(Resource::new_own(0)) } else { Err(KeyvalueError::NoSuchStore) };
            Ok((bucket,))
        },
    )?;
    store.func_wrap(
        "[method]bucket.get",
        |host: StoreContextMut<'_, Host>, (_, key): (Resource<Bucket>, String)| -> Answer<Option<Vec<u8>>> {
            Ok((Ok(host.data().state.get(&key).cloned()),))
        },
    )?;
    store.func_wrap(
        "[method]bucket.set",
        |mut host: StoreContextMut<'_, Host>,
         (_, key, value): (Resource<Bucket>, String, Vec<u8>)|
         -> Answer<()> {
            host.data_mut().state.insert(key, value);
            Ok((Ok(()),))
        },
    )?;
    Ok(())
}

/// What the guests import besides, and do not call here.
const UNCALLED: [(&str, &[&str]); 5] = [
    (KEYVALUE, &["[method]bucket.delete", "[method]bucket.exists", "[method]bucket.list-keys"]),
    ("wasi:keyvalue/atomics@0.2.0-draft", &["increment"]),
    ("wasi:keyvalue/batch@0.2.0-draft", &["get-many", "set-many", "delete-many"]),
    ("wasi:config/store@0.2.0-rc.1", &["get", "get-all"]),
    ("wasi:logging/logging@0.1.0-draft", &["log"]),
];

fn add_uncalled(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    for (interface, functions) in UNCALLED {
        let mut interface = linker.instance(interface)?;
        for function in functions {
            interface.func_new(function, |_, _, _, _| Err(wasmtime::format_err!("no bench calls it")))?;
        }
    }
    Ok(())
}
