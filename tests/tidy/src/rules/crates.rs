//! The edges between our crates and to the crates of others, from `cargo metadata --no-deps` and `Cargo.lock`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::checkout::Checkout;
use crate::finding::Finding;
use crate::rust_code::RustCode;

/// The crates of the product and those of ours that each may use. Nothing else is allowed.
const EDGES: [(&str, &[&str]); 8] = [
    ("hvm-types", &[]),
    ("hvm-appimage", &["hvm-types"]),
    ("hvm-api", &["hvm-types"]),
    ("hvm-runtime", &["hvm-types"]),
    ("hvm-scheduler", &["hvm-api", "hvm-types"]),
    ("hvm-agent", &["hvm-runtime", "hvm-appimage", "hvm-api", "hvm-types"]),
    ("appimage-tool", &["hvm-appimage", "hvm-types", "hvm-runtime"]),
    ("hvm", &["hvm-agent", "hvm-scheduler", "hvm-appimage", "hvm-api", "hvm-types"]),
];
/// Crates that only measure, test and show: they may use any other, and no crate of the product may use them.
const FREE_FOLDERS: [&str; 3] = ["benches/", "tests/", "examples/"];
/// The only crate of the product that may use wasmtime.
const WASMTIME_USER: &str = "hvm-runtime";
/// The crate that must not even reach wasmtime through others.
const WASMTIME_STRANGER: &str = "hvm-scheduler";
/// Dependencies that no file of the crate names: generated code does, or a file that belongs to another crate.
const NAMED_ELSEWHERE: [(&str, &str); 8] = [
    ("hvm-api", "prost"),
    ("hvm-api", "tonic"),
    ("hvm-api", "tonic-prost"),
    ("fuzz-checks", "postcard"),
    ("fuzz-checks", "sha2"),
    ("fuzz-checks", "thiserror"),
    ("fuzz-checks", "tracing"),
    ("fuzz-checks", "wasm-encoder"),
];

/// One crate of the workspace, as its manifest declares it.
#[derive(Debug, Clone)]
pub struct Member {
    /// The package name.
    pub name: String,
    /// Its folder below the root, ending in `/`.
    pub folder: String,
    /// Names of what it is built from: normal and build dependencies.
    pub builds_on: Vec<String>,
    /// Names of what only its tests use.
    pub tests_with: Vec<String>,
}

/// The members of the workspace.
///
/// # Errors
/// A sentence, when cargo fails or answers something unexpected.
pub fn read_members(root: &Path) -> Result<Vec<Member>, String> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .current_dir(root)
        .output()
        .map_err(|error| format!("cargo metadata can't be started: {error}"))?;
    if !output.status.success() {
        return Err(format!("cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr)));
    }
    let metadata: Value = serde_json::from_slice(&output.stdout)
        .map_err(|error| format!("cargo metadata did not print JSON: {error}"))?;
    let packages = metadata["packages"].as_array().ok_or("cargo metadata names no packages")?;
    packages.iter().map(|package| member(root, package)).collect()
}

fn member(root: &Path, package: &Value) -> Result<Member, String> {
    let text = |value: &Value| value.as_str().map(str::to_owned).ok_or("cargo metadata misses a name");
    let manifest = text(&package["manifest_path"])?;
    let folder = Path::new(&manifest)
        .parent()
        .and_then(|folder| folder.strip_prefix(root).ok())
        .ok_or_else(|| format!("{manifest} is not below {}", root.display()))?;
    let dependencies = package["dependencies"].as_array().ok_or("a package misses its dependencies")?;
    let (tests_with, builds_on): (Vec<&Value>, Vec<&Value>) =
        dependencies.iter().partition(|dependency| dependency["kind"] == "dev");
    let names =
        |of: Vec<&Value>| of.iter().map(|dependency| text(&dependency["name"])).collect::<Result<_, _>>();
    Ok(Member {
        name: text(&package["name"])?,
        folder: format!("{}/", folder.display()),
        builds_on: names(builds_on)?,
        tests_with: names(tests_with)?,
    })
}

/// Our crates use each other only along the arrows of ARCHITECTURE.md.
#[must_use]
pub fn edges_are_those_of_the_architecture(members: &[Member]) -> Vec<Finding> {
    let ours: BTreeSet<&str> = members.iter().map(|member| member.name.as_str()).collect();
    let mut findings = Vec::new();
    for member in members.iter().filter(|member| !is_free(member)) {
        let manifest = format!("{}Cargo.toml", member.folder);
        let Some((_, allowed)) = EDGES.iter().find(|(name, _)| *name == member.name) else {
            let what = format!("the crate `{}` has no place in the architecture", member.name);
            findings.push(Finding::new(
                &manifest,
                1,
                what,
                "give it one in ARCHITECTURE.md and in tests/tidy",
            ));
            continue;
        };
        for used in member.builds_on.iter().filter(|used| ours.contains(used.as_str())) {
            if !allowed.contains(&used.as_str()) {
                let what = format!("`{}` must not use `{used}`", member.name);
                findings.push(Finding::new(&manifest, 1, what, "see the map in ARCHITECTURE.md"));
            }
        }
    }
    findings
}

/// wasmtime is used by the runtime alone.
#[must_use]
pub fn only_the_runtime_uses_wasmtime(members: &[Member]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for member in members.iter().filter(|member| !is_free(member) && member.name != WASMTIME_USER) {
        for used in member.builds_on.iter().filter(|used| is_wasmtime(used)) {
            let what = format!("`{}` uses `{used}`", member.name);
            let remedy = "only hvm-runtime does: ask it for what is needed";
            findings.push(Finding::new(&format!("{}Cargo.toml", member.folder), 1, what, remedy));
        }
    }
    findings
}

/// The scheduler does not link wasmtime, not even through a crate of others. Every edge of the lock file counts,
/// even one that only another platform or feature follows.
///
/// # Errors
/// A sentence, when the lock file is not as expected.
pub fn the_scheduler_never_links_wasmtime(members: &[Member], lock: &str) -> Result<Vec<Finding>, String> {
    let locked = locked_edges(lock)?;
    let start = members.iter().find(|member| member.name == WASMTIME_STRANGER);
    let start = start.ok_or_else(|| format!("the workspace has no `{WASMTIME_STRANGER}`"))?;
    let mut came_from: BTreeMap<String, String> = BTreeMap::new();
    let mut open: VecDeque<String> = VecDeque::from([start.name.clone()]);
    while let Some(name) = open.pop_front() {
        let own = members.iter().find(|member| member.name == name).map(|member| &member.builds_on);
        for used in own.or_else(|| locked.get(&name)).into_iter().flatten() {
            if used != WASMTIME_STRANGER && !came_from.contains_key(used) {
                came_from.insert(used.clone(), name.clone());
                open.push_back(used.clone());
            }
        }
    }
    let reached = came_from.keys().filter(|name| is_wasmtime(name));
    Ok(reached
        .map(|name| {
            let what = format!("the scheduler links `{name}`: {}", way_to(name, &came_from));
            Finding::new("scheduler/Cargo.toml", 1, what, "cut the first edge that is ours")
        })
        .collect())
}

fn way_to(name: &str, came_from: &BTreeMap<String, String>) -> String {
    let mut way = vec![name];
    while let Some(before) = way.last().and_then(|last| came_from.get(*last)) {
        way.push(before);
    }
    way.reverse();
    way.join(" → ")
}

/// What each package of the lock file depends on; versions of one name are taken together.
fn locked_edges(lock: &str) -> Result<BTreeMap<String, Vec<String>>, String> {
    let lock: toml::Table = lock.parse().map_err(|error| format!("Cargo.lock is no TOML: {error}"))?;
    let packages = lock.get("package").and_then(toml::Value::as_array).ok_or("Cargo.lock has no packages")?;
    let mut edges: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in packages {
        let name = package.get("name").and_then(toml::Value::as_str).ok_or("a locked package has no name")?;
        let used = package.get("dependencies").and_then(toml::Value::as_array).into_iter().flatten();
        let used = used.filter_map(toml::Value::as_str).filter_map(|entry| entry.split(' ').next());
        edges.entry(name.to_owned()).or_default().extend(used.map(str::to_owned));
    }
    Ok(edges)
}

/// Lints and versions are chosen once, in the workspace.
///
/// # Errors
/// A sentence, when a manifest is missing or no TOML.
pub fn manifests_follow_the_workspace(
    checkout: &Checkout,
    members: &[Member],
) -> Result<Vec<Finding>, String> {
    let mut findings = Vec::new();
    for member in members {
        let path = format!("{}Cargo.toml", member.folder);
        let file = checkout.file(&path).ok_or_else(|| format!("{path} is missing"))?;
        findings.extend(manifest_follows_the_workspace(&path, &file.text)?);
    }
    Ok(findings)
}

fn manifest_follows_the_workspace(path: &str, text: &str) -> Result<Vec<Finding>, String> {
    let manifest: toml::Table = text.parse().map_err(|error| format!("{path} is no TOML: {error}"))?;
    let is_inherited = |value: Option<&toml::Value>| {
        value.and_then(|value| value.get("workspace")).and_then(toml::Value::as_bool) == Some(true)
    };
    let mut findings = Vec::new();
    if !is_inherited(manifest.get("lints")) {
        findings.push(Finding::new(
            path,
            1,
            "the crate has lints of its own",
            "add `[lints] workspace = true`",
        ));
    }
    for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
        for (name, value) in manifest.get(kind).and_then(toml::Value::as_table).into_iter().flatten() {
            let is_here = value.get("path").is_some() && value.get("version").is_none();
            if !is_inherited(Some(value)) && !is_here {
                let line =
                    text.lines().position(|line| line.starts_with(name.as_str())).map_or(1, |at| at + 1);
                let what = format!("`{name}` has a version of its own");
                let remedy = "name it in [workspace.dependencies] and write `workspace = true` here";
                findings.push(Finding::new(path, line, what, remedy));
            }
        }
    }
    Ok(findings)
}

/// Each dependency is named somewhere in the code of its crate: an unused one costs every build.
#[must_use]
pub fn every_dependency_is_used(checkout: &Checkout, members: &[Member]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for member in members {
        let files = checkout.ending(".rs").filter(|file| file.path.starts_with(&member.folder));
        let code: Vec<RustCode> = files.map(RustCode::new).collect();
        let words: BTreeSet<&str> = code.iter().flat_map(RustCode::words).map(|(_, word)| word).collect();
        for used in member.builds_on.iter().chain(&member.tests_with) {
            let is_elsewhere = NAMED_ELSEWHERE.contains(&(member.name.as_str(), used.as_str()));
            if !is_elsewhere && !words.contains(used.replace('-', "_").as_str()) {
                let what = format!("`{}` does not use `{used}`", member.name);
                findings.push(Finding::new(
                    &format!("{}Cargo.toml", member.folder),
                    1,
                    what,
                    "remove the dependency",
                ));
            }
        }
    }
    findings
}

fn is_free(member: &Member) -> bool {
    FREE_FOLDERS.iter().any(|folder| member.folder.starts_with(folder))
}

fn is_wasmtime(name: &str) -> bool {
    name == "wasmtime" || name.starts_with("wasmtime-") || name.starts_with("cranelift")
}

#[cfg(test)]
#[path = "crates_tests.rs"]
mod tests;
