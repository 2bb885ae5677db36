//! `hvm coredump`: waits for a guest that is stopped, on whichever host, and writes its core dump to a file. Half a
//! file is never there under its name, and nobody but its owner may read it.

use std::io::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use hvm_api::v1;
use tempfile::NamedTempFile;
use tokio_stream::{StreamExt as _, StreamMap};
use tonic::{Code, Status, Streaming};

use crate::cli::CoredumpArgs;
use crate::client::Control;
use crate::failure::Failure;
use crate::out;

/// The answers of the hosts that have such partitions.
type Hosts = StreamMap<String, Streaming<v1::CoreDumpPart>>;

/// Runs `hvm coredump`.
pub(crate) async fn coredump(args: CoredumpArgs) -> Result<(), Failure> {
    if args.out.exists() {
        return Err(already_there(&args.out));
    }
    let mut control = Control::connect(&args.api).await?;
    let after = args.after.map_or(Duration::ZERO, |after| after.0);
    let after_millis = match u64::try_from(after.as_millis()).unwrap_or(u64::MAX) {
        0 if args.after.is_some() => 1,
        millis => millis,
    };
    let request = v1::GetCoreDumpRequest { prefix: args.of.clone(), after_millis };
    let mut hosts = Hosts::new();
    for (host, mut agent) in control.agents().await? {
        match agent.get_core_dump(request.clone()).await {
            Ok(answer) => drop(hosts.insert(host, answer.into_inner())),
            Err(status) if status.code() == Code::NotFound => {}
            Err(status) => return Err(Failure::of_call(&host, &status)),
        }
    }
    if hosts.is_empty() {
        return Err(Failure::new(format!("no partition of `{}` runs", args.of))
            .hint("`hvm status --partitions` shows those that do"));
    }
    let waiting = tokio::time::timeout(args.wait.0, stopped(&mut hosts)).await;
    let (host, stopped) = waiting.map_err(|_| {
        Failure::new(format!(
            "no guest of `{}` was stopped within {}; nothing was dumped",
            args.of, args.wait
        ))
        .hint("--wait TIME waits longer; --after TIME stops a guest that still computes after that time")
    })??;
    let mut parts = hosts.remove(&host).ok_or_else(|| Failure::new("the host is gone"))?;
    // The other hosts need not wait any more.
    drop(hosts);
    let file = receive(&mut parts, &host, stopped.bytes, &args.out).await?;
    keep(file, &args.out)?;
    out::line(format!("{} on {host}, {}, stopped at: {}", stopped.replica, stopped.request, stopped.reason));
    for frame in &stopped.frames {
        out::line(format!("  {}", frame.trim()));
    }
    out::line(format!("wrote {} ({} bytes); it holds the guest's memory", args.out.display(), stopped.bytes));
    Ok(())
}

/// The first guest that is stopped, and where.
async fn stopped(hosts: &mut Hosts) -> Result<(String, v1::StoppedGuest), Failure> {
    let mut waiting = 0;
    let mut armed = 0;
    while let Some((host, part)) = hosts.next().await {
        let part = part.map_err(|status: Status| Failure::of_call(&host, &status))?;
        if let Some(stopped) = part.stopped {
            return Ok((host, stopped));
        }
        waiting += part.waiting;
        armed += 1;
        if armed == hosts.len() {
            eprintln!("waiting for a guest of {waiting} partitions to be stopped; Ctrl-C ends it");
        }
    }
    Err(Failure::new("every host ended the wait").hint("`hvm status` shows what runs"))
}

/// Takes the dump in, beside the place where it goes.
async fn receive(
    parts: &mut Streaming<v1::CoreDumpPart>,
    host: &str,
    bytes: u64,
    out: &Path,
) -> Result<NamedTempFile, Failure> {
    let folder = out.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Made with mode 0600.
    let file = tempfile::Builder::new().prefix(".coredump-").suffix(".part").tempfile_in(folder);
    let mut file = file.map_err(|error| cannot_write(out, &error))?;
    let mut received = 0;
    while let Some(part) = parts.message().await.map_err(|status| Failure::of_call(host, &status))? {
        received += part.data.len() as u64;
        file.write_all(&part.data).map_err(|error| cannot_write(out, &error))?;
    }
    if received != bytes {
        return Err(Failure::new(format!("{host} sent {received} of {bytes} bytes; nothing was written")));
    }
    file.as_file().sync_all().map_err(|error| cannot_write(out, &error))?;
    Ok(file)
}

/// Gives the file its name.
fn keep(file: NamedTempFile, out: &Path) -> Result<(), Failure> {
    file.persist_noclobber(out).map(drop).map_err(|failed| match failed.error.kind() {
        io::ErrorKind::AlreadyExists => already_there(out),
        _ => cannot_write(out, &failed.error),
    })
}

fn already_there(out: &Path) -> Failure {
    Failure::new(format!("{} is already there", out.display())).hint("name another file with --out")
}

fn cannot_write(out: &Path, error: &io::Error) -> Failure {
    Failure::new(format!("can't write {}: {error}", out.display()))
}
