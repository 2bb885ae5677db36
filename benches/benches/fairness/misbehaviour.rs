//! What a partition may do to its neighbours.

use std::time::Duration;

use http::{Method, Request};
use hvm_runtime::{Hvm, RequestBody};
use hvm_types::ReplicaId;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::neighbour::Bed;

/// Requests that a misbehaving partition has under way at the same time.
const AT_ONCE: usize = 16;
/// The same where its mailbox is flooded.
const FLOOD: usize = 512;

/// A way to misbehave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Misbehaviour {
    Loops,
    Allocates,
    FloodsItsMailbox,
    Logs,
    Connects,
    IsReadHalf,
    Traps,
    Hoards,
}

impl Misbehaviour {
    pub(crate) const ALL: [Self; 8] = [
        Self::Loops,
        Self::Allocates,
        Self::FloodsItsMailbox,
        Self::Logs,
        Self::Connects,
        Self::IsReadHalf,
        Self::Traps,
        Self::Hoards,
    ];
    /// The partition that misbehaves.
    pub(crate) const PARTITION: &str = "bench/offender/0";

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Loops => "loops without end",
            Self::Allocates => "allocates without end",
            Self::FloodsItsMailbox => "is flooded with requests",
            Self::Logs => "logs without end",
            Self::Connects => "opens connections without end",
            Self::IsReadHalf => "has its answers read half",
            Self::Traps => "traps at every request",
            Self::Hoards => "hoards host resources",
        }
    }

    /// Opens the partition and makes it misbehave until the tasks are aborted.
    pub(crate) fn start(self, bed: &Bed, executor: &Handle) -> Vec<JoinHandle<()>> {
        let mut tasks = Vec::new();
        let mut granted = Vec::new();
        let mut path = match self {
            Self::Loops => "/loop".to_owned(),
            Self::Allocates => "/alloc".to_owned(),
            Self::FloodsItsMailbox => "/echo".to_owned(),
            Self::Logs => "/log-for-ever".to_owned(),
            Self::IsReadHalf => "/big?mb=1000".to_owned(),
            Self::Traps => "/trap".to_owned(),
            Self::Hoards => "/hoard?what=fields&n=900".to_owned(),
            Self::Connects => String::new(),
        };
        if self == Self::Connects {
            let listener = executor.block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
            let origin = format!("http://{}", listener.local_addr().expect("it is bound"));
            path = format!("/fetch?url={origin}/");
            granted.push(origin);
            tasks.push(executor.spawn(hold_connections(listener)));
        }
        bed.open(Self::PARTITION, granted);
        let askers = if self == Self::FloodsItsMailbox { FLOOD } else { AT_ONCE };
        // Commands wait for one another: one of them is enough.
        for number in 0..askers {
            let method =
                if number == 0 || self == Self::FloodsItsMailbox { Method::POST } else { Method::GET };
            tasks.push(executor.spawn(ask_without_end(bed.hvm.clone(), method, path.clone(), self)));
        }
        tasks
    }
}

/// Takes connections, answers nothing, and closes each after a while.
async fn hold_connections(listener: TcpListener) {
    while let Ok((mut stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            let mut read = [0; 1024];
            let _read = stream.read(&mut read).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        });
    }
}

async fn ask_without_end(hvm: Hvm, method: Method, path: String, how: Misbehaviour) {
    let id: ReplicaId = Misbehaviour::PARTITION.parse().expect("a valid id");
    loop {
        let request = Request::builder().method(method.clone()).uri(format!("http://bench.example{path}"));
        let request = request.body(RequestBody::empty()).expect("a request");
        let answer = hvm.request(&id, request).await;
        if how == Misbehaviour::IsReadHalf {
            // Held until the deadline cuts it off, and longer.
            let _held = answer;
            tokio::time::sleep(Duration::from_secs(12)).await;
        } else if answer.is_err() {
            // Whoever is refused asks again soon.
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
    }
}
