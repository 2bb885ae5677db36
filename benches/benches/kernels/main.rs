//! What it costs that a guest can be interrupted: compute kernels under several ways to do it, in rounds one after
//! another, each relative to the same code without any. `benches/kernels` builds the guest and runs this.

mod hostile;
mod rewrite;
mod table;
mod variant;

use std::hint::black_box;
use std::io::Write as _;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use variant::{Running, Variant};

/// A kernel and its size: some tens of milliseconds each.
const KERNELS: [(&str, u32); 8] = [
    ("matmul", 220),
    ("sieve", 3_000_000),
    ("fib", 31),
    ("sha256", 5_000),
    ("sort", 400_000),
    ("branchy", 3_000_000),
    ("json", 8_000),
    ("calls", 6_000_000),
];
/// Rounds over all kernels and variants; an odd number, so that there is a median.
const ROUNDS: usize = 11;

fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

fn main() -> anyhow::Result<()> {
    let guest = std::env::var("HVM_KERNELS").map_err(|_| anyhow::anyhow!("run benches/kernels instead"))?;
    let wasm = std::fs::read(guest)?;
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    if filter == "hostile" {
        return hostile::print(&mut std::io::stdout());
    }
    let mut running =
        Variant::ALL.iter().map(|v| Running::start(*v, &wasm)).collect::<anyhow::Result<Vec<_>>>()?;
    let kernels: Vec<_> = KERNELS.into_iter().filter(|(name, _)| name.contains(&filter)).collect();
    // By kernel, by variant: one time per round.
    let mut times = vec![vec![Vec::new(); running.len()]; kernels.len()];
    for round in 0..=ROUNDS {
        for (times, (name, size)) in times.iter_mut().zip(&kernels) {
            for (times, guest) in times.iter_mut().zip(&mut running) {
                let before = cpu();
                black_box(guest.run(name, *size)?);
                // The first round warms up.
                if round > 0 {
                    times.push(cpu().saturating_sub(before));
                }
            }
        }
        writeln!(std::io::stderr(), "round {round} of {ROUNDS}")?;
    }
    table::print(&kernels, &running, &times, &mut std::io::stdout())?;
    if filter.is_empty() { hostile::print(&mut std::io::stdout()) } else { Ok(()) }
}
