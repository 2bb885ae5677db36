//! `hvm deploy`: declares a deployment and waits until it runs.

use std::time::Duration;

use hvm_types::{DeploymentStatus, ReplicaState};
use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::DeployArgs;
use crate::client::Control;
use crate::command::plan;
use crate::failure::Failure;
use crate::out;

const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// How long failures may last before waiting ends: agents try again by themselves.
const FAILING_MAX: Duration = Duration::from_secs(5);

/// Runs `hvm deploy`.
pub(crate) async fn deploy(args: DeployArgs) -> Result<(), Failure> {
    let mut control = Control::connect(&args.api).await?;
    let (spec, request) = plan::prepare(&mut control, &args.file).await?;
    let (name, text) = (spec.deployment.to_string(), request.text.clone());
    let response = control.client.deploy(request).await;
    let response = response.map_err(|status| control.failure(&status).with_source(&text))?.into_inner();
    if response.changed {
        out::note(format!("{name}: generation {} declared", response.generation));
    } else {
        out::note(format!("{name}: unchanged at generation {}", response.generation));
    }
    if args.detach {
        return Ok(());
    }
    wait(&mut control, &name, Duration::from_secs(args.timeout)).await
}

/// Waits until every copy serves the newest generation.
async fn wait(control: &mut Control, name: &str, longest: Duration) -> Result<(), Failure> {
    let progress = ProgressBar::new(0);
    progress.set_style(
        ProgressStyle::with_template("{pos}/{len} ready {wide_bar} {msg}").expect("a valid template"),
    );
    let start = tokio::time::Instant::now();
    let mut failing_since = None;
    loop {
        let status = current(control, name).await?;
        let view = Convergence::of(&status);
        progress.set_length(view.copies);
        progress.set_position(view.ready);
        progress.set_message(view.states.clone());
        if view.ready == view.copies {
            progress.finish_and_clear();
            out::note(format!("{name}: {}/{} ready", view.ready, view.copies));
            return Ok(());
        }
        let now = tokio::time::Instant::now();
        failing_since = view.failures.first().map(|_| failing_since.unwrap_or(now));
        let gave_up = failing_since.is_some_and(|since| now - since > FAILING_MAX);
        if gave_up || now - start > longest {
            progress.finish_and_clear();
            return Err(view.failure(name, gave_up));
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

async fn current(control: &mut Control, name: &str) -> Result<DeploymentStatus, Failure> {
    let deployments = control.status(name).await?.deployments;
    let wire = deployments
        .into_iter()
        .find(|deployment| deployment.deployment == name)
        .ok_or_else(|| Failure::new(format!("{name} is gone")))?;
    Ok(DeploymentStatus::try_from(wire)?)
}

/// How far a deployment is from what was declared.
struct Convergence {
    copies: u64,
    ready: u64,
    states: String,
    failures: Vec<String>,
    waits: Vec<String>,
}

impl Convergence {
    fn of(status: &DeploymentStatus) -> Self {
        let mut view =
            Self { copies: 0, ready: 0, states: String::new(), failures: Vec::new(), waits: Vec::new() };
        let mut words = std::collections::BTreeMap::<&str, u64>::new();
        for group in &status.groups {
            for replica in &group.replicas {
                view.copies += 1;
                let name = format!("{}/{}/{}", status.deployment, group.group, replica.index);
                if let Some(reason) = &replica.waits {
                    view.waits.push(format!("{name} waits: {reason}"));
                }
                let state = match &replica.observed {
                    Some(report) if report.generation == status.generation => &report.state,
                    Some(report) => report.next.as_ref().map_or(&ReplicaState::Assigned, |(_, next)| next),
                    None => &ReplicaState::Assigned,
                };
                *words.entry(state.word()).or_default() += 1;
                match state {
                    ReplicaState::Failed { reason } => view.failures.push(format!("{name} failed: {reason}")),
                    state if state.serves() => view.ready += 1,
                    _ => {}
                }
            }
        }
        view.states = words.iter().map(|(word, n)| format!("{n} {word}")).collect::<Vec<_>>().join(", ");
        view
    }

    fn failure(&self, name: &str, gave_up: bool) -> Failure {
        let why = if gave_up { "does not start" } else { "did not start in time" };
        let reasons = self.failures.iter().chain(&self.waits);
        let first: Vec<&str> = reasons.map(String::as_str).take(3).collect();
        let first = if first.is_empty() { self.states.clone() } else { first.join("; ") };
        Failure::new(format!("{name} {why}: {}/{} ready; {first}", self.ready, self.copies)).hint(format!(
            "it is declared and is tried again; `hvm status {name} --partitions` shows each copy, a corrected \
             file can be deployed over it, `hvm stop {name}` withdraws it"
        ))
    }
}
