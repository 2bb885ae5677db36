//! How long requests were in their guests: what a guest awaits by itself counts, what the host lets it wait for does not.
//!
//! A wait that counts shows: on one worker, with one place, guests that never await anything are in the guest one after
//! another, so together for no longer than the test takes.

use std::time::{Duration, Instant};

use guests_path::Guest;
use http::Method;
use hvm_runtime::{Call, CallError, PartitionSpec, Phase, RequestError};
use hvm_types::{CpuMhz, Generation, Meter, Period, ReplicaId, StateSchema};

use super::bed::{Bed, PATIENCE, all_grants, first, id, request};

const DEADLINE: Duration = Duration::from_millis(400);

async fn used(bed: &Bed, id: &ReplicaId) -> Meter {
    // Whoever asks is answered before its worker has counted.
    bed.until(id, |status| status.doing.is_empty()).await;
    let usage = bed.hvm.usage().partitions;
    usage.into_iter().find(|usage| usage.id == *id).expect("open").meter
}

#[tokio::test]
async fn a_wait_for_the_share_of_the_processor_is_no_time_in_the_guest() {
    let bed = Bed::with(|config| config.cpu = CpuMhz(1_000));
    for (name, guest) in [("query", Guest::Probe), ("command", Guest::Probe), ("call", Guest::Typed)] {
        let id = id(&format!("test/{name}/0"));
        let mut spec = PartitionSpec::new(id.clone(), bed.module(guest).await);
        spec.grants = all_grants();
        spec.resources.cpu = Some(CpuMhz(50));
        spec.resources.deadline = Period(DEADLINE);
        bed.hvm.open(spec).await.expect("it opens");
        let began = Instant::now();
        let ended = match name {
            "query" => bed.request(&id, request(Method::GET, "/loop", "")).await.map(drop),
            "command" => bed.request(&id, request(Method::POST, "/loop", "")).await.map(drop),
            _ => bed.hvm.call(&id, Call::query("loop", "")).await.map(drop).map_err(|error| match error {
                CallError::Request(error) => error,
                CallError::Failed(failure) => panic!("{failure}"),
            }),
        };
        let meter = used(&bed, &id).await;
        let took = began.elapsed();
        assert!(matches!(ended, Err(RequestError::Deadline { .. })), "{name}: {ended:?}");
        assert!(
            meter.wall + meter.throttled < took * 5 / 4,
            "{name}: some of {took:?} counts twice: {meter:?}"
        );
    }
}

#[tokio::test]
async fn a_wait_of_a_migration_for_its_share_is_no_time_in_the_guest() {
    let bed = Bed::with(|config| config.cpu = CpuMhz(1_000));
    bed.hvm.open(bed.probe(&first()).await).await.expect("it opens");
    bed.post("/kv/set?k=a&v=1", "").await.expect("a first record");
    let before = used(&bed, &first()).await;
    let mut next = bed.probe(&first()).await;
    next.generation = Generation(2);
    next.schema = StateSchema { version: 2, migrates_from: Some(1) };
    next.env.insert("migrate".to_owned(), "loop".to_owned());
    next.resources.cpu = Some(CpuMhz(50));
    next.resources.migration_deadline = Period(DEADLINE);
    let began = Instant::now();
    bed.hvm.upgrade(next).await.expect_err("it never ends by itself");
    let took = began.elapsed();
    let meter = used(&bed, &first()).await;
    let (wall, throttled) = (meter.wall - before.wall, meter.throttled - before.throttled);
    assert!(
        wall > Duration::ZERO && wall + throttled < took * 5 / 4,
        "{took:?} in all: {wall:?}, {throttled:?}"
    );
}

#[tokio::test]
async fn a_wait_for_its_turn_is_no_time_in_the_guest() {
    let bed = Bed::new();
    let ids = [first(), id("test/probe/1"), id("test/probe/2")];
    for id in &ids {
        bed.open(id, |spec| spec.resources.deadline = Period(DEADLINE)).await;
    }
    let began = Instant::now();
    let asked = ids.iter().map(|id| bed.request(id, request(Method::GET, "/loop", "")));
    for ended in futures::future::join_all(asked).await {
        ended.expect_err("it never ends by itself");
    }
    let mut sum = Duration::ZERO;
    for id in &ids {
        let meter = used(&bed, id).await;
        // Settled slices lag behind, so processor time is less, but nothing that a guest does is left out.
        assert!(meter.wall >= meter.cpu / 2 && meter.wall > Duration::ZERO, "{meter:?}");
        sum += meter.wall;
    }
    let took = began.elapsed();
    assert!(sum <= took, "one worker was in guests for {sum:?} of {took:?}");
}

#[tokio::test]
async fn a_wait_for_a_place_is_no_time_in_the_guest_and_a_sleep_of_its_own_is() {
    const SLEEP: Duration = Duration::from_millis(300);
    let bed = Bed::with(|config| config.max_instances = 1);
    let other = id("test/other/0");
    for id in [&other, &first()] {
        bed.open(id, |spec| spec.resources.deadline = Period(PATIENCE)).await;
    }
    for method in [Method::GET, Method::POST] {
        let before = used(&bed, &first()).await.wall + used(&bed, &other).await.wall;
        let began = Instant::now();
        let (hvm, path) = (bed.hvm.clone(), format!("/sleep?ms={}", SLEEP.as_millis()));
        let sleeping = tokio::spawn({
            let method = method.clone();
            async move { hvm.request(&first(), request(method, &path, "")).await.map(drop) }
        });
        bed.until(&first(), |status| status.doing.iter().any(|doing| doing.phase == Phase::Guest)).await;
        let waits = bed.request(&other, request(method, "/sleep?ms=0", ""));
        let (slept, waited) = tokio::join!(sleeping, waits);
        slept.expect("no fault").expect("answered");
        assert_eq!(waited.expect("it gets the place").status(), 204);
        let both = used(&bed, &first()).await.wall + used(&bed, &other).await.wall - before;
        let took = began.elapsed();
        assert!(both >= SLEEP, "a guest's own sleep is left out: {both:?}");
        assert!(both < took * 5 / 4, "one place was had for {both:?} of {took:?}");
    }
}
