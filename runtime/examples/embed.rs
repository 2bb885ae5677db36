//! Embeds the HVM: compiles the component that is named on the command line, serves one request with it, and
//! prints the answer.
//!
//! `cargo run -p hvm-runtime --example embed -- hello.wasm /`

#![expect(clippy::print_stdout, reason = "an example talks to whoever runs it")]

use std::sync::Arc;

use http::Request;
use hvm_runtime::state::{LocalConfig, LocalEngine};
use hvm_runtime::{Hvm, HvmConfig, PartitionSpec, RequestBody};
use hvm_types::{Grants, ReplicaId};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let component = arguments.next().ok_or("usage: embed COMPONENT [PATH]")?;
    let path = arguments.next().unwrap_or_else(|| "/".to_owned());
    let data = tempfile::tempdir()?;

    let state = LocalEngine::start(LocalConfig::new(data.path().join("state")))?;
    let hvm = Hvm::start(HvmConfig::new(data.path().join("code")), Arc::new(state))?;
    let module = hvm.compile(std::fs::read(component)?.into()).await?;
    let id: ReplicaId = "example/web/0".parse()?;
    let mut spec = PartitionSpec::new(id.clone(), module);
    spec.grants = Grants { keyvalue: vec!["default".to_owned()], logging: true, ..Grants::default() };
    hvm.open(spec).await?;

    let response = hvm.request(&id, Request::get(path).body(RequestBody::empty())?).await?;
    println!("{}", response.status());
    println!("{}", String::from_utf8_lossy(&response.into_body().collect().await?));
    hvm.shutdown().await;
    Ok(())
}
