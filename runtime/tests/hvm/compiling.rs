//! Compiling in a child process: what it may take, what its end means, and that nothing of it stays.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use super::bed::{Bed, PATIENCE, first, read, request};
use bytes::Bytes;
use guests_path::{Guest, compile_bomb};
use http::Method;
use hvm_runtime::{CompileChild, CompileError, Compiling};
use hvm_types::{ByteSize, Metering};

fn child() -> CompileChild {
    CompileChild::of_program(env!("CARGO_BIN_EXE_hvm-compile-component"))
}

/// A program that is none of ours.
fn shell(script: &str) -> CompileChild {
    CompileChild {
        arguments: ["-c", script].map(OsString::from).to_vec(),
        ..CompileChild::of_program("/bin/sh")
    }
}

/// An HVM that has compiled nothing yet.
fn bed(child: CompileChild) -> Bed {
    Bed::with_own_code(|config| config.compiling = Compiling::Child(child))
}

fn bomb(functions: u32, steps: u32) -> Bytes {
    compile_bomb(functions, steps).into()
}

/// Processes of this one that were told this processor time, which is a test's own.
fn children(cpu: Duration) -> Vec<PathBuf> {
    let processes = std::fs::read_dir("/proc").expect("a proc file system").flatten();
    let told = format!(",cpu={},", cpu.as_secs());
    processes
        .map(|process| process.path())
        .filter(|process| {
            std::fs::read_to_string(process.join("cmdline")).is_ok_and(|line| line.contains(&told))
        })
        .collect()
}

async fn until(what: &str, is: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !is() {
        assert!(tokio::time::Instant::now() < deadline, "{what} did not come to be");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn what_a_child_compiled_runs_and_is_kept_for_the_next_time() {
    let bed = bed(child());
    bed.open(&first(), |_| {}).await;
    assert_eq!(bed.post("/kv/incr?k=n", "").await.expect("answered").text(), "1");
    bed.hvm.close(&first()).await.expect("closed");
    // No child can be started any more: this is from the directory.
    let bed = bed.restart_with_own_code(|config| config.compiling = Compiling::Child(shell("exit 1"))).await;
    bed.open(&first(), |_| {}).await;
    assert_eq!(bed.post("/kv/incr?k=n", "").await.expect("answered").text(), "2");
}

#[tokio::test]
async fn a_child_compiles_for_both_ways_of_metering_and_what_it_used_is_the_hosts() {
    let bed = bed(child());
    for metering in Metering::ALL {
        let module = bed.hvm.compile_for(metering, read(Guest::Hello)).await.expect("it compiles");
        assert_eq!(module.metering(), metering);
    }
    let used = bed.hvm.drain_usage().await;
    let own = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let own = Duration::try_from(own).expect("positive");
    assert!(used.process_cpu > own, "{:?}, of which {own:?} are this process's", used.process_cpu);
    assert_eq!(used.host_cpu, used.process_cpu);
    let children = bed.hvm.observe_host().compile_children;
    assert_eq!(children.ended, 2);
    assert!(children.cpu > Duration::ZERO && children.cpu < used.process_cpu, "{children:?} of {used:?}");
}

#[tokio::test]
async fn a_component_that_takes_too_long_dies_in_the_child() {
    let limit = Duration::from_secs(1);
    let bed = bed(CompileChild { cpu: limit, ..child() });
    let error = bed.hvm.compile(bomb(200, 15_000)).await.expect_err("it takes minutes");
    assert!(matches!(error, CompileError::TooSlow { limit: l, .. } if l == limit), "{error}");
}

#[tokio::test]
async fn a_component_that_took_too_long_is_not_tried_again_at_once() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let tries = folder.path().join("tries");
    let bed = bed(shell(&format!("echo try >> {}; kill -XCPU $$", tries.display())));
    for _ in 0..3 {
        let error = bed.hvm.compile(read(Guest::Hello)).await.expect_err("too slow");
        assert!(matches!(error, CompileError::TooSlow { .. }), "{error}");
    }
    assert_eq!(std::fs::read_to_string(tries).expect("written"), "try\n");
}

#[tokio::test]
async fn a_component_that_takes_too_much_memory_dies_in_the_child() {
    let limit = ByteSize::mib(150);
    let bed = bed(CompileChild { memory: limit, ..child() });
    let error = bed.hvm.compile(bomb(1, 500_000)).await.expect_err("it takes gigabytes");
    assert!(matches!(error, CompileError::NoMemory { limit: l, .. } if l == limit), "{error}");
    assert!(bed.hvm.compile(read(Guest::Hello)).await.is_ok(), "what needs less is compiled");
}

#[tokio::test]
async fn code_that_is_too_long_is_not_taken() {
    let limit = ByteSize(4096);
    let bed = bed(CompileChild { code: limit, ..child() });
    let error = bed.hvm.compile(read(Guest::Hello)).await.expect_err("it is longer");
    assert!(matches!(error, CompileError::CodeTooLarge { limit: l, .. } if l == limit), "{error}");
}

#[tokio::test]
async fn partitions_answer_while_a_component_is_compiled_and_nothing_is_left_when_nobody_waits_for_it() {
    let cpu = Duration::from_secs(7_001);
    let bed = bed(CompileChild { cpu, ..child() });
    bed.open(&first(), |_| {}).await;
    let (one, other) = (bed.hvm.clone(), bed.hvm.clone());
    let bomb = bomb(200, 15_000);
    let (again, two) = (bomb.clone(), bomb.clone());
    let one = tokio::spawn(async move { one.compile(again).await.map(drop) });
    let other = tokio::spawn(async move { other.compile(two).await.map(drop) });
    until("a child", || !children(cpu).is_empty()).await;
    for n in 1..=50_u32 {
        let answer = bed.request(&first(), request(Method::POST, "/kv/incr?k=n", "")).await;
        assert_eq!(answer.expect("answered").text(), n.to_string());
    }
    assert_eq!(children(cpu).len(), 1, "two who want the same share one compilation");
    // Another component does not wait for it.
    bed.hvm.compile(read(Guest::Hello)).await.expect("compiled beside it");
    one.abort();
    drop(one.await);
    assert!(!other.is_finished() && children(cpu).len() == 1, "the other still waits");
    other.abort();
    until("the child's end", || children(cpu).is_empty()).await;
}

#[tokio::test]
async fn a_child_that_hangs_is_killed_at_its_deadline() {
    let limit = Duration::from_millis(200);
    let cpu = Duration::from_secs(7_002);
    let bed = bed(CompileChild { wall: limit, cpu, ..shell("while :; do :; done") });
    let error = bed.hvm.compile(read(Guest::Hello)).await.expect_err("it never ends");
    assert!(matches!(error, CompileError::TimedOut { limit: l, .. } if l == limit), "{error}");
    assert_eq!(children(cpu), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn what_a_child_did_wrong_is_told_and_nothing_of_it_is_kept() {
    for (script, reason) in [
        ("kill -KILL $$", "signal 9"),
        ("echo this is no code", "its code does not load"),
        ("true", "its code does not load"),
        ("echo out of paper >&2; exit 9", "out of paper"),
    ] {
        let bed = bed(shell(script));
        let error = bed.hvm.compile(read(Guest::Hello)).await.expect_err(script).to_string();
        assert!(error.contains(reason), "{script}: {error}");
        assert_eq!(bed.kept_code(), 0, "{script}: its code was kept");
    }
    let bed = bed(CompileChild::of_program("/nowhere/compiler"));
    let error = bed.hvm.compile(read(Guest::Hello)).await.expect_err("no such program").to_string();
    assert!(error.contains("/nowhere/compiler can't be started"), "{error}");
}

#[tokio::test]
async fn a_component_that_the_compiler_refuses_says_why() {
    let mut broken = bomb(1, 2).to_vec();
    let end = broken.windows(2).rposition(|bytes| bytes == [0x20, 0x01]).expect("the last `local.get`");
    broken[end] = 0x41; // `i32.const`: an i32 is returned where an i64 is promised
    let bed = bed(child());
    let error = bed.hvm.compile(broken.into()).await.expect_err("it is not valid");
    assert!(
        matches!(&error, CompileError::Refused { reason, .. } if reason.contains("type mismatch")),
        "{error}"
    );
}

#[tokio::test]
async fn a_child_has_no_environment_no_files_and_no_new_rights() {
    let seen = "{ env; ls -l /proc/$$/fd; } >&2; exit 9";
    let bed = bed(shell(seen));
    let error = bed.hvm.compile(read(Guest::Hello)).await.expect_err("no compiler").to_string();
    assert!(!error.contains("HOME=") && !error.contains("CARGO"), "{error}");
    assert!(error.contains("hvm-code"), "its output is a file in memory: {error}");
    assert!(!error.contains("socket") && !error.contains("state"), "a file of ours was passed on: {error}");

    let cpu = Duration::from_secs(7_003);
    let bed = self::bed(CompileChild { cpu, ..child() });
    let compiling = tokio::spawn(async move { bed.hvm.compile(bomb(200, 15_000)).await.map(drop) });
    let is = |file: &str, line: &str| {
        children(cpu).first().is_some_and(|child| {
            std::fs::read_to_string(child.join(file)).is_ok_and(|text| text.lines().any(|l| l == line))
        })
    };
    until("a child without rights", || is("status", "NoNewPrivs:\t1")).await;
    let opens_nothing = || {
        let limits = children(cpu).first().map(|child| std::fs::read_to_string(child.join("limits")));
        let limits = limits.and_then(Result::ok).unwrap_or_default();
        let files = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
        files.is_some_and(|files| files.split_whitespace().next() == Some("3"))
    };
    until("a child that can open nothing", opens_nothing).await;
    compiling.abort();
    until("the child's end", || children(cpu).is_empty()).await;
}
