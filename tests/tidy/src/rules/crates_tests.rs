//! The rules about crates, each shown failing.

use super::*;
use crate::checkout::TextFile;

fn member(name: &str, folder: &str, builds_on: &[&str]) -> Member {
    let builds_on = builds_on.iter().map(|name| (*name).to_owned()).collect();
    Member { name: name.to_owned(), folder: folder.to_owned(), builds_on, tests_with: Vec::new() }
}

fn whats(findings: &[Finding]) -> Vec<&str> {
    findings.iter().map(|finding| finding.what.as_str()).collect()
}

#[test]
fn an_edge_that_is_not_in_the_architecture_is_found() {
    let members = [
        member("hvm-types", "types/", &["serde"]),
        member("hvm-api", "api/", &["hvm-types", "hvm-agent"]),
        member("hvm-agent", "agent/", &["hvm-api"]),
        member("hvm-extra", "extra/", &[]),
        member("tidy", "tests/tidy/", &["hvm-agent"]),
        member("hvm", "hvm/", &["tidy"]),
    ];
    let findings = edges_are_those_of_the_architecture(&members);
    assert_eq!(
        whats(&findings),
        [
            "`hvm-api` must not use `hvm-agent`",
            "the crate `hvm-extra` has no place in the architecture",
            "`hvm` must not use `tidy`",
        ]
    );
}

#[test]
fn wasmtime_outside_the_runtime_is_found() {
    let members = [
        member("hvm-runtime", "runtime/", &["wasmtime"]),
        member("hvm-agent", "agent/", &["wasmtime-wasi"]),
        member("hvm-benches", "benches/", &["wasmtime"]),
    ];
    assert_eq!(whats(&only_the_runtime_uses_wasmtime(&members)), ["`hvm-agent` uses `wasmtime-wasi`"]);
}

#[test]
fn wasmtime_behind_a_crate_of_others_is_found_with_the_way_to_it() {
    let members = [
        member("hvm-scheduler", "scheduler/", &["hvm-api"]),
        member("hvm-api", "api/", &["innocent"]),
        member("hvm-runtime", "runtime/", &["wasmtime"]),
    ];
    let lock =
        "[[package]]\nname = \"innocent\"\nversion = \"1.0.0\"\ndependencies = [\"wasmtime 48.0.0\"]\n";
    let findings = the_scheduler_never_links_wasmtime(&members, lock).expect("the lock file is sound");
    assert_eq!(
        whats(&findings),
        ["the scheduler links `wasmtime`: hvm-scheduler → hvm-api → innocent → wasmtime"]
    );
    let lock = "[[package]]\nname = \"innocent\"\nversion = \"1.0.0\"\n";
    let findings = the_scheduler_never_links_wasmtime(&members, lock).expect("the lock file is sound");
    assert!(findings.is_empty(), "{findings:?}");
}

#[test]
fn a_manifest_with_lints_or_versions_of_its_own_is_found() {
    let text =
        "[lints]\nworkspace = true\n[dependencies]\na.workspace = true\nb = \"1\"\nc = { path = \"../c\" }\n";
    let findings = manifest_follows_the_workspace("x/Cargo.toml", text).expect("it is TOML");
    assert_eq!(findings.iter().map(|finding| finding.line).collect::<Vec<_>>(), [5]);
    let findings = manifest_follows_the_workspace("x/Cargo.toml", "[package]\n").expect("it is TOML");
    assert_eq!(whats(&findings), ["the crate has lints of its own"]);
}

#[test]
fn a_dependency_that_no_code_names_is_found() {
    let files = vec![TextFile::example("agent/src/a.rs", "//! uses bytes\nuse tokio_util::x;\n")];
    let checkout = Checkout { root: ".".into(), files };
    let members = [member("hvm-agent", "agent/", &["tokio-util", "bytes"])];
    assert_eq!(whats(&every_dependency_is_used(&checkout, &members)), ["`hvm-agent` does not use `bytes`"]);
}
