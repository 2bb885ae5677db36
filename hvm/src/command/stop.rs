//! `hvm stop`: withdraws a deployment and waits until it is gone.

use std::time::Duration;

use hvm_api::v1;

use crate::cli::StopArgs;
use crate::client::Control;
use crate::failure::Failure;
use crate::out;

const POLL_INTERVAL: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Runs `hvm stop`.
pub(crate) async fn stop(args: StopArgs) -> Result<(), Failure> {
    let mut control = Control::connect(&args.api).await?;
    let name = args.deployment;
    let request = v1::StopRequest { deployment: name.clone(), purge: args.purge };
    control.client.stop(request).await.map_err(|status| control.failure(&status))?;
    if args.detach {
        out::note(format!("{name}: stopping"));
        return Ok(());
    }
    let end = tokio::time::Instant::now() + LONGEST_WAIT;
    while tokio::time::Instant::now() < end {
        if !control.status(&name).await?.deployments.iter().any(|deployment| deployment.deployment == name) {
            let state = if args.purge { "its state is deleted" } else { "its state is kept" };
            out::note(format!("{name}: stopped, {state}"));
            return Ok(());
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    Err(Failure::new(format!("{name} is not gone from every host yet"))
        .hint(format!("it goes on stopping; `hvm status {name} --partitions` shows what is left")))
}
