//! `hvm deploy`: declares a deployment and waits until it runs.

use std::collections::BTreeMap;
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
    let mut told = Waits::new();
    loop {
        let status = current(control, name).await?;
        let view = Convergence::of(&status);
        progress.set_length(view.copies);
        progress.set_position(view.ready);
        progress.set_message(view.states.clone());
        for line in new_lines(&mut told, &view.waits) {
            progress.suspend(|| eprintln!("{line}"));
        }
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
    waits: Waits,
}

/// What copies wait for, by group, and how many of them.
type Waits = BTreeMap<(String, String), u64>;

/// What is waited for that was not a moment ago, a line each.
fn new_lines(told: &mut Waits, now: &Waits) -> Vec<String> {
    let new = now.iter().filter(|(wait, _)| !told.contains_key(*wait)).map(wait_line).collect();
    told.clone_from(now);
    new
}

fn wait_line(((group, reason), copies): (&(String, String), &u64)) -> String {
    match copies {
        1 => format!("{group}: 1 copy waits: {reason}"),
        copies => format!("{group}: {copies} copies wait: {reason}"),
    }
}

impl Convergence {
    fn of(status: &DeploymentStatus) -> Self {
        let mut view =
            Self { copies: 0, ready: 0, states: String::new(), failures: Vec::new(), waits: Waits::new() };
        let mut words = BTreeMap::<&str, u64>::new();
        for group in &status.groups {
            let of_group = format!("{}/{}", status.deployment, group.group);
            for replica in &group.replicas {
                view.copies += 1;
                let name = format!("{of_group}/{}", replica.index);
                if let Some(reason) = &replica.waits {
                    *view.waits.entry((of_group.clone(), reason.clone())).or_default() += 1;
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
        let reasons = self.failures.iter().cloned().chain(self.waits.iter().map(wait_line));
        let first: Vec<String> = reasons.take(3).collect();
        let first = if first.is_empty() { self.states.clone() } else { first.join("; ") };
        Failure::new(format!("{name} {why}: {}/{} ready; {first}", self.ready, self.copies)).hint(format!(
            "it is declared and is tried again; `hvm status {name} --partitions` shows each copy, a corrected \
             file can be deployed over it, `hvm stop {name}` withdraws it"
        ))
    }
}

#[cfg(test)]
mod tests {
    use hvm_types::{GroupStatus, ReplicaStatus};

    use super::*;

    fn status(waits: &[Option<&str>]) -> DeploymentStatus {
        let replica = |(index, waits): (u32, &Option<&str>)| ReplicaStatus {
            index,
            host: None,
            wanted: hvm_types::Generation(1),
            observed: None,
            waits: waits.map(str::to_owned),
        };
        DeploymentStatus {
            deployment: "shop".parse().expect("a name"),
            generation: hvm_types::Generation(1),
            app: "shop 1.0.0".to_owned(),
            image: hvm_types::Digest::of(b"shop"),
            stopping: false,
            groups: vec![GroupStatus {
                group: "web".parse().expect("a name"),
                partitioned: false,
                replicas: (0..).zip(waits).map(replica).collect(),
            }],
        }
    }

    #[test]
    fn what_copies_wait_for_is_told_once_until_it_changes_and_again_at_the_end() {
        let mut told = Waits::new();
        let mut lines = |waits: &[Option<&str>]| new_lines(&mut told, &Convergence::of(&status(waits)).waits);
        assert!(lines(&[None, None, None]).is_empty());
        let (full, lost) = (Some("no room"), Some("host a is lost"));
        assert_eq!(lines(&[None, full, full]), ["shop/web: 2 copies wait: no room"]);
        assert!(lines(&[full, full, full]).is_empty(), "the same reason");
        assert_eq!(lines(&[full, full, lost]), ["shop/web: 1 copy waits: host a is lost"]);
        assert!(lines(&[None, None, None]).is_empty());
        assert_eq!(lines(&[None, None, full]), ["shop/web: 1 copy waits: no room"], "it came back");

        let failure = Convergence::of(&status(&[None, full, full])).failure("shop", false).text();
        assert!(failure.contains("0/3 ready; shop/web: 2 copies wait: no room"), "{failure}");
    }
}
