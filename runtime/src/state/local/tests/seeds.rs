//! Which seeds are run, and what they must find.

use std::sync::atomic::{AtomicU64, Ordering};

use super::simulation::{Bench, Outcome, run};

const SEEDS: u64 = 300;
const SEEDS_LONG: u64 = 10_000;
/// Each with a disk of its own: most of a seed's time goes by in waiting for the disk's side.
const THREADS: usize = 4;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("the variable is a number"))
}

#[test]
fn what_was_acknowledged_outlives_the_disk_and_nothing_happens_twice() {
    let usual = if std::env::var_os("HVM_LONG").is_some() { SEEDS_LONG } else { SEEDS };
    let seeds = match number("LOCAL_STATE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("LOCAL_STATE_SEEDS").unwrap_or(usual),
    };
    let next = AtomicU64::new(seeds.start);
    let run_some = || {
        let (bench, mut counts) = (Bench::new(), [0, 0, 0]);
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return counts;
            }
            let Outcome { broken, committed, unknown, lost, .. } = run(seed, &bench, &|_| {});
            if let Some(broken) = broken {
                panic!("LOCAL_STATE_SEED={seed}: {broken}");
            }
            counts = [counts[0] + committed, counts[1] + unknown, counts[2] + lost as u64];
        }
    };
    let counts = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(run_some)).collect();
        let counts = threads.into_iter().map(|thread| thread.join().expect("no seed breaks a rule"));
        counts.fold([0; 3], |sum, of_thread| std::array::from_fn(|i| sum[i] + of_thread[i]))
    });
    let count = seeds.end - seeds.start;
    let [committed, unknown, lost] = counts;
    let is_busy = committed > 10 * count && unknown > count / 2 && lost > 0;
    assert!(is_busy || count < 100, "{committed} commits, {unknown} without an answer, {lost} losses");
}

#[test]
fn a_seed_gives_the_same_run_again() {
    let bench = Bench::new();
    for seed in 0..10 {
        let outcomes: [Outcome; 2] = std::array::from_fn(|_| run(seed, &bench, &|_| {}));
        assert_eq!(outcomes[0], outcomes[1], "seed {seed}");
    }
}

/// What the net is for.
#[cfg(feature = "planted-faults")]
mod planted {
    use super::super::super::faults::Faults;
    use super::*;

    #[expect(clippy::print_stderr, reason = "which seed found it is for people")]
    fn is_found(faults: Faults) {
        let bench = Bench::new();
        let found = (0..1000).find_map(|seed| {
            let broken = run(seed, &bench, &|config| config.faults = faults).broken?;
            Some((seed, broken))
        });
        let (seed, broken) = found.unwrap_or_else(|| panic!("{faults:?} was not found"));
        eprintln!("{faults:?} is found by LOCAL_STATE_SEED={seed}: {broken}");
    }

    #[test]
    fn an_answer_without_a_sync_is_found() {
        is_found(Faults { skip_sync: true, ..Faults::default() });
    }

    #[test]
    fn an_answer_before_the_write_is_found() {
        is_found(Faults { acknowledge_early: true, ..Faults::default() });
    }

    #[test]
    fn a_dropped_fence_is_found() {
        is_found(Faults { drop_fence: true, ..Faults::default() });
    }

    #[test]
    fn an_epoch_that_is_given_again_is_found() {
        is_found(Faults { reuse_epoch: true, ..Faults::default() });
    }

    #[test]
    fn a_forgotten_window_is_found() {
        is_found(Faults { forget_window: true, ..Faults::default() });
    }
}
