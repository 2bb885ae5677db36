//! `hvm state check`: files, folders of snapshots, and partitions.

use std::path::{Path, PathBuf};

use hvm_agent::StateFileSummary;
use hvm_api::v1;
use serde_json::{Value, json};

use super::file;
use super::hosts::{Hosts, state_json};
use super::snapshot::{FORMAT, MANIFEST};
use crate::cli::ListArgs;
use crate::failure::Failure;
use crate::table;

/// One thing that was checked.
struct Checked {
    /// What, for people.
    what: String,
    /// What it holds: of a file or a partition that is whole.
    numbers: Option<Numbers>,
    json: Value,
    problem: Option<String>,
}

struct Numbers {
    partition: String,
    sequence: u64,
    entries: u64,
    stored_bytes: u64,
    answers: u64,
}

/// Runs `hvm state check`.
pub(super) async fn check(what: Vec<PathBuf>, list: &ListArgs) -> Result<(), Failure> {
    let mut checked = Vec::new();
    for path in what {
        if path.is_dir() {
            check_folder(&path, &mut checked)?;
        } else if path.exists() || path.extension().is_some() || path.is_absolute() {
            checked.push(check_file(&path));
        } else {
            check_partitions(&path.to_string_lossy(), list, &mut checked).await?;
        }
    }
    print(&checked, list.json)?;
    let problems = checked.iter().filter_map(|one| Some(format!("{}: {}", one.what, one.problem.as_ref()?)));
    match problems.collect::<Vec<_>>() {
        problems if problems.is_empty() => Ok(()),
        problems => Err(Failure::all(problems)),
    }
}

fn check_file(path: &Path) -> Checked {
    let what = path.display().to_string();
    match file::check(path) {
        Ok(summary) => Checked {
            what,
            numbers: Some(numbers_of(&summary)),
            json: file::summary_json(path, &summary),
            problem: None,
        },
        Err(failure) => {
            // The problem names the file already.
            let text = failure.text();
            let named = format!("{what}: ");
            let problem = text.strip_prefix(&named).unwrap_or(&text).to_owned();
            Checked { json: json!({ "file": path }), what, numbers: None, problem: Some(problem) }
        }
    }
}

/// Checks the files of a snapshot's list: that they are whole, and the ones that the list means.
fn check_folder(folder: &Path, checked: &mut Vec<Checked>) -> Result<(), Failure> {
    let path = folder.join(MANIFEST);
    let text = std::fs::read_to_string(&path).map_err(|error| {
        Failure::new(format!("can't read {}: {error}", path.display()))
            .hint("a snapshot without its list is not complete; its files can be checked one by one")
    })?;
    let invalid = |what: &str| Failure::new(format!("{}: {what}", path.display()));
    let manifest: Value = serde_json::from_str(&text).map_err(|error| invalid(&error.to_string()))?;
    if manifest["format"] != FORMAT {
        return Err(invalid("it is no list of state files that this program knows"));
    }
    let files = manifest["partitions"].as_array().ok_or_else(|| invalid("it lists no partitions"))?;
    for listed in files {
        let name = listed["file"].as_str().filter(|name| !name.contains('/') && !name.starts_with('.'));
        let name = name.ok_or_else(|| invalid("it lists a file without a name"))?;
        let mut one = check_file(&folder.join(name));
        if one.problem.is_none() && one.json["digest"] != listed["digest"] {
            one.problem = Some("it is whole, but not the file that its list means".to_owned());
        }
        checked.push(one);
    }
    Ok(())
}

async fn check_partitions(of: &str, list: &ListArgs, checked: &mut Vec<Checked>) -> Result<(), Failure> {
    let hosts = Hosts::ask(&list.api, of).await?;
    let mut names: Vec<&String> = hosts.stored.iter().map(|(host, _)| host).collect();
    names.sort_unstable();
    names.dedup();
    if names.is_empty() {
        return Err(Failure::new(format!("`{of}` is neither a file nor has any host state of it"))
            .hint("`hvm state ls` shows what there is"));
    }
    for host in names {
        let request = v1::CheckStateRequest { prefix: of.to_owned() };
        let failed = |status: tonic::Status| Failure::of_call(host, &status);
        let mut answers = hosts.agent(host)?.check_state(request).await.map_err(failed)?.into_inner();
        while let Some(answer) = answers.message().await.map_err(failed)? {
            checked.push(partition(host, answer));
        }
    }
    Ok(())
}

fn partition(host: &str, answer: v1::CheckedState) -> Checked {
    let state = answer.partition.unwrap_or_default();
    let mut json = state_json(host, &state);
    json["entries"] = answer.entries.into();
    let is_whole = answer.problem.is_empty();
    let numbers = is_whole.then(|| Numbers {
        partition: state.replica.clone(),
        sequence: state.sequence,
        entries: answer.entries,
        stored_bytes: state.stored_bytes,
        answers: state.answers,
    });
    let what = format!("{} on {host}", state.replica);
    Checked { what, numbers, json, problem: (!is_whole).then_some(answer.problem) }
}

fn numbers_of(summary: &StateFileSummary) -> Numbers {
    let head = &summary.header.head;
    Numbers {
        partition: summary.header.partition.to_string(),
        sequence: head.sequence.0,
        entries: summary.entries,
        stored_bytes: head.stored.0,
        answers: head.answers,
    }
}

fn print(checked: &[Checked], as_json: bool) -> Result<(), Failure> {
    if as_json {
        let with_problem = |one: &Checked| {
            let mut json = one.json.clone();
            json["problem"] = one.problem.clone().into();
            json
        };
        return table::print_json(&checked.iter().map(with_problem).collect::<Vec<_>>());
    }
    let mut rows = table::table(&["checked", "partition", "sequence", "keys", "stored", "answers", "result"]);
    for one in checked {
        let mut row = vec![one.what.clone()];
        match &one.numbers {
            Some(numbers) => row.extend([
                numbers.partition.clone(),
                numbers.sequence.to_string(),
                numbers.entries.to_string(),
                table::bytes(numbers.stored_bytes),
                numbers.answers.to_string(),
            ]),
            None => row.extend(["-"; 5].map(str::to_owned)),
        }
        row.push(if one.problem.is_none() { "whole" } else { "damaged" }.to_owned());
        rows.add_row(row);
    }
    table::print(&rows, "nothing was checked");
    Ok(())
}
