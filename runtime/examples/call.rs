//! Calls a typed component without HTTP: adds to a counter of `examples/counter` and reads it.
//!
//! `cargo run -p hvm-runtime --example call -- counter.wasm`

#![expect(clippy::print_stdout, reason = "an example talks to whoever runs it")]

use std::sync::Arc;

use hvm_runtime::state::{LocalConfig, LocalEngine};
use hvm_runtime::{Call, CallError, FailureKind, Hvm, HvmConfig, PartitionSpec};
use hvm_types::{Grants, ReplicaId};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let component = std::env::args().nth(1).ok_or("usage: call COMPONENT")?;
    let data = tempfile::tempdir()?;

    let state = LocalEngine::start(LocalConfig::new(data.path().join("state")))?;
    let hvm = Hvm::start(HvmConfig::new(data.path().join("code")), Arc::new(state))?;
    let module = hvm.compile(std::fs::read(component)?.into()).await?;
    let id: ReplicaId = "example/counters/0".parse()?;
    let mut spec = PartitionSpec::new(id.clone(), module);
    spec.grants = Grants { keyvalue: vec!["default".to_owned()], ..Grants::default() };
    hvm.open(spec).await?;

    // Under its key it is applied once, however often it is sent.
    for _ in 0..2 {
        let add = Call::command("counters/red", "5").with_idempotency_key("order-1".parse()?);
        println!("red: {}", String::from_utf8_lossy(&hvm.call(&id, add).await?));
    }
    match hvm.call(&id, Call::query("counters/blue", "")).await {
        Err(CallError::Failed(failure)) if failure.kind == FailureKind::NotFound => println!("blue: none"),
        answer => println!("blue: {}", String::from_utf8_lossy(&answer?)),
    }
    hvm.shutdown().await;
    Ok(())
}
