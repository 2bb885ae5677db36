//! Deterministic metering: the same requests take the same fuel, whatever else happens, and no trap escapes the bill.

use std::time::Duration;

use bytes::Bytes;
use guests_path::Guest;
use http::Method;
use hvm_runtime::{Call, PartitionSpec, RequestError, Trap};
use hvm_types::{InstancePolicy, Metering, Period, ReplicaId};

use super::bed::{Bed, all_grants, first, id, read, request};

const REPLAYS: usize = 1_000;

async fn spec(bed: &Bed, id: &ReplicaId, guest: Guest) -> PartitionSpec {
    let module = bed.hvm.compile_for(Metering::Deterministic, read(guest)).await.expect("it compiles");
    let mut spec = PartitionSpec::new(id.clone(), module);
    spec.grants = all_grants();
    spec
}

/// An HVM with one probe whose metering is deterministic.
async fn probe(change: impl FnOnce(&mut PartitionSpec)) -> Bed {
    let bed = Bed::new();
    let mut spec = spec(&bed, &first(), Guest::Probe).await;
    change(&mut spec);
    bed.hvm.open(spec).await.expect("it opens");
    bed
}

fn fuel(bed: &Bed, id: &ReplicaId) -> u64 {
    let usage = bed.hvm.usage();
    usage.partitions.iter().find(|used| used.id == *id).expect("open").meter.fuel
}

/// The fuel that something takes.
async fn fuel_of<T>(bed: &Bed, asking: impl Future<Output = T>) -> (u64, T) {
    let before = fuel(bed, &first());
    let answer = asking.await;
    (fuel(bed, &first()) - before, answer)
}

async fn fuel_of_trap(bed: &Bed, kind: &str, spin: u32) -> u64 {
    let (fuel, answer) = fuel_of(bed, bed.get(&format!("/trap?kind={kind}&spin={spin}"))).await;
    match answer {
        Err(RequestError::Trapped { trap: Trap::Wasm { .. } }) => fuel,
        other => panic!("{kind}: {other:?}"),
    }
}

#[tokio::test]
async fn a_request_takes_the_same_fuel_in_each_of_a_thousand_instances() {
    let bed = probe(|spec| spec.instance = InstancePolicy::PerRequest).await;
    let mut seen = [None, None];
    for _ in 0..REPLAYS {
        for (path, seen) in ["/spin?n=500", "/kv/incr?k=n&by=0"].into_iter().zip(&mut seen) {
            let (fuel, answer) = fuel_of(&bed, bed.post(path, "the body")).await;
            assert_eq!(answer.expect("answered").status(), 200);
            assert_eq!(*seen.get_or_insert(fuel), fuel, "{path}");
        }
    }
    assert!(seen[0] > Some(1_500) && seen[0] != seen[1], "{seen:?}");
}

#[tokio::test]
async fn the_same_requests_to_a_reused_instance_take_the_same_fuel() {
    let bed = Bed::new();
    let mut rounds = Vec::new();
    for _ in 0..2 {
        bed.hvm.open(spec(&bed, &first(), Guest::Probe).await).await.expect("it opens");
        let mut used = Vec::new();
        for number in 0..REPLAYS / 2 {
            let path = format!("/spin?n={}", number % 7 * 100);
            used.push(fuel_of(&bed, bed.get(&path)).await.0);
            used.push(fuel_of(&bed, bed.post("/counter-in-memory", "")).await.0);
        }
        rounds.push(used);
        bed.hvm.close(&first()).await.expect("closed");
    }
    assert_eq!(rounds[0], rounds[1]);
}

#[tokio::test]
async fn a_trap_is_charged_what_it_did_and_the_same_in_each_of_a_thousand_replays() {
    // Fewer than the slice that is charged with a trap, so that a slice which is left out would show.
    const SPIN: u32 = 5_000;
    let bed = probe(|_| {}).await;
    // Written down to the last instruction.
    let exact = fuel_of_trap(&bed, "unreachable", SPIN).await;
    assert!(exact > u64::from(SPIN) * 3, "{exact}");
    for kind in ["unreachable", "divide", "out-of-bounds"] {
        let charged = fuel_of_trap(&bed, kind, SPIN).await;
        let other = if kind == "unreachable" { exact..exact + 100 } else { exact..exact + 1_300_000 };
        assert!(other.contains(&charged), "{kind}: {charged}, {exact} were used");
        for _ in 0..REPLAYS / 3 {
            assert_eq!(fuel_of_trap(&bed, kind, SPIN).await, charged, "{kind}");
        }
    }
}

#[tokio::test]
async fn a_trap_after_many_slices_is_charged_all_of_them() {
    const SPIN: u32 = 1_000_000;
    let bed = probe(|_| {}).await;
    let exact = fuel_of_trap(&bed, "unreachable", SPIN).await;
    assert!(exact > u64::from(SPIN) * 3, "{exact}");
    for kind in ["divide", "out-of-bounds"] {
        let charged = fuel_of_trap(&bed, kind, SPIN).await;
        assert!((exact..exact + 1_300_000).contains(&charged), "{kind}: {charged}, {exact} were used");
        assert_eq!(fuel_of_trap(&bed, kind, SPIN).await, charged, "{kind}");
    }
}

#[tokio::test]
async fn a_guest_that_its_deadline_stops_is_charged_what_it_used() {
    let bed = probe(|spec| spec.resources.deadline = Period(Duration::from_millis(200))).await;
    let (used, answer) = fuel_of(&bed, bed.get("/loop")).await;
    assert!(matches!(answer, Err(RequestError::Deadline { .. })), "{answer:?}");
    assert!(used > 10_000, "{used}");
}

#[tokio::test]
async fn calls_take_the_same_fuel_each_time() {
    let bed = Bed::new();
    let mut typed = spec(&bed, &first(), Guest::Typed).await;
    typed.instance = InstancePolicy::PerRequest;
    bed.hvm.open(typed).await.expect("it opens");
    let mut seen = [None, None];
    for _ in 0..REPLAYS / 4 {
        let command = fuel_of(&bed, bed.hvm.call(&first(), Call::command("set", "v"))).await;
        let query = fuel_of(&bed, bed.hvm.call(&first(), Call::query("get", ""))).await;
        assert_eq!(query.1.expect("answered"), Bytes::from("v"));
        for ((fuel, seen), answered) in
            [command.0, query.0].into_iter().zip(&mut seen).zip([command.1.is_ok(), true])
        {
            assert!(answered && fuel > 0);
            assert_eq!(*seen.get_or_insert(fuel), fuel);
        }
    }
}

#[tokio::test]
async fn one_component_is_compiled_for_each_way_of_metering_and_the_code_is_never_mixed_up() {
    let mut bed = Bed::with_own_code(|_| {});
    for round in 0..2 {
        let ids = [id("test/time/0"), id("test/fuel/0")];
        for (id, metering) in ids.iter().zip(Metering::ALL) {
            let module = bed.hvm.compile_for(metering, read(Guest::Probe)).await.expect("it compiles");
            assert_eq!(module.metering(), metering);
            let mut spec = PartitionSpec::new(id.clone(), module);
            spec.grants = all_grants();
            bed.hvm.open(spec).await.expect("it opens");
            bed.request(id, request(Method::GET, "/spin?n=10", "")).await.expect("answered");
        }
        assert_eq!(bed.kept_code(), 2, "round {round}");
        let used = ids.map(|id| fuel(&bed, &id));
        assert!(used[0] == 0 && used[1] > 0, "{used:?}");
        bed = bed.restart_with_own_code(|_| {}).await;
    }
}

#[tokio::test]
async fn a_full_pool_takes_no_place_from_the_other_one() {
    let bed = Bed::with(|config| config.max_deterministic_instances = 1);
    let ids = [id("test/fuel/0"), id("test/fuel/1")];
    bed.open(&first(), |_| {}).await;
    for id in &ids {
        bed.hvm.open(spec(&bed, id, Guest::Probe).await).await.expect("it opens");
    }
    for id in ids.iter().chain([&first()]) {
        bed.request(id, request(Method::POST, "/counter-in-memory", "")).await.expect("answered");
    }
    let live = [&ids[0], &ids[1], &first()].map(|id| bed.status(id).expect("open").instances);
    assert_eq!(live, [0, 1, 1]);
}

/// A component whose commands and queries go a long way without a loop or a call, longer than a slice. Then a command ends
/// by `unreachable` and a query by a division.
fn long_way(steps: usize) -> Bytes {
    let way = "(local.set 0 (i32.add (local.get 0) (i32.load (local.get 2))))".repeat(steps);
    let types = r#"(type $kind (enum "invalid" "denied" "not-found" "conflict" "unavailable" "internal"))"#;
    let component = format!(
        r#"(component
            (core module $module
                (memory (export "memory") 1)
                (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
                (func (export "command") (param i32 i32 i32 i32) (result i32) {way} (unreachable))
                (func (export "query") (param i32 i32 i32 i32) (result i32)
                    {way} (i32.div_u (local.get 0) (i32.const 0))))
            (core instance $guest (instantiate $module))
            {types}
            (type $failure (record (field "kind" $kind) (field "message" string)))
            (type $call (func (param "name" string) (param "payload" (list u8))
                (result (result (list u8) (error $failure)))))
            (func $command (type $call) (canon lift (core func $guest "command")
                (memory $guest "memory") (realloc (func $guest "realloc"))))
            (func $query (type $call) (canon lift (core func $guest "query")
                (memory $guest "memory") (realloc (func $guest "realloc"))))
            (component $interface
                {types}
                (import "kind" (type $kind-in (eq $kind)))
                (type $failure (record (field "kind" $kind-in) (field "message" string)))
                (import "failure-in" (type $failure-in (eq $failure)))
                (type $call (func (param "name" string) (param "payload" (list u8))
                    (result (result (list u8) (error $failure-in)))))
                (import "command-in" (func $command (type $call)))
                (import "query-in" (func $query (type $call)))
                (export $kind-out "failure-kind" (type $kind))
                (type $failure-of-out (record (field "kind" $kind-out) (field "message" string)))
                (export $failure-out "failure" (type $failure-of-out))
                (type $call-out (func (param "name" string) (param "payload" (list u8))
                    (result (result (list u8) (error $failure-out)))))
                (export "command" (func $command) (func (type $call-out)))
                (export "query" (func $query) (func (type $call-out))))
            (instance $handler (instantiate $interface
                (with "kind" (type $kind)) (with "failure-in" (type $failure))
                (with "command-in" (func $command)) (with "query-in" (func $query))))
            (export "hvm:app/handler@0.1.0" (instance $handler)))"#
    );
    wat::parse_str(component).expect("a valid component").into()
}

#[tokio::test]
async fn a_trap_at_the_end_of_a_way_longer_than_a_slice_is_charged_all_of_it() {
    const STEPS: usize = 40_000;
    let bed = Bed::new();
    let module = bed.hvm.compile_for(Metering::Deterministic, long_way(STEPS)).await.expect("it compiles");
    bed.hvm.open(PartitionSpec::new(first(), module)).await.expect("it opens");
    let (exact, answer) = fuel_of(&bed, bed.hvm.call(&first(), Call::command("a", ""))).await;
    assert!(answer.is_err() && exact > 5 * STEPS as u64, "{exact}: {answer:?}");
    let (charged, answer) = fuel_of(&bed, bed.hvm.call(&first(), Call::query("a", ""))).await;
    assert!(answer.is_err() && charged >= exact, "{charged} of {exact}: {answer:?}");
}
