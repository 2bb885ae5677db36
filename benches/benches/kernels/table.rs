//! The table, in Markdown.

use std::io::{self, Write};
use std::time::Duration;

use crate::variant::Running;

fn median(sorted: &[f64]) -> f64 {
    sorted[sorted.len() / 2]
}

/// Ratios to the first variant, round by round, sorted.
fn ratios(times: &[Duration], floor: &[Duration]) -> Vec<f64> {
    let mut ratios: Vec<_> =
        times.iter().zip(floor).map(|(a, b)| a.as_secs_f64() / b.as_secs_f64()).collect();
    ratios.sort_by(f64::total_cmp);
    ratios
}

fn geometric_mean(values: impl Iterator<Item = f64>) -> f64 {
    let logarithms: Vec<_> = values.map(f64::ln).collect();
    (logarithms.iter().sum::<f64>() / logarithms.len() as f64).exp()
}

/// Prints medians of the ratios and their quartiles; then their geometric mean, code size and compile time.
pub(crate) fn print(
    kernels: &[(&str, u32)],
    guests: &[Running],
    times: &[Vec<Vec<Duration>>],
    out: &mut impl Write,
) -> io::Result<()> {
    let quarter = |sorted: &[f64], part: usize| sorted[sorted.len() * part / 4];
    writeln!(
        out,
        "| Kernel | {} |",
        guests.iter().map(|g| g.variant.title()).collect::<Vec<_>>().join(" | ")
    )?;
    writeln!(out, "|---|{}", "--:|".repeat(guests.len()))?;
    for ((name, _), times) in kernels.iter().zip(times) {
        let floor = &times[0];
        let milliseconds = floor.iter().min().map_or(0.0, Duration::as_secs_f64) * 1e3;
        let cells = times[1..].iter().map(|times| {
            let ratios = ratios(times, floor);
            format!("{:.2} ({:.2}–{:.2})", median(&ratios), quarter(&ratios, 1), quarter(&ratios, 3))
        });
        writeln!(out, "| {name} | {milliseconds:.1} ms | {} |", cells.collect::<Vec<_>>().join(" | "))?;
    }
    let mean = |variant: usize| {
        let values = times.iter().map(|times| median(&ratios(&times[variant], &times[0])));
        geometric_mean(values)
    };
    let means: Vec<_> = (1..guests.len()).map(|variant| format!("**{:.3}**", mean(variant))).collect();
    writeln!(out, "| geometric mean | 1 | {} |", means.join(" | "))?;
    let sizes: Vec<_> = guests.iter().map(|g| format!("{} KiB", g.code_bytes >> 10)).collect();
    writeln!(out, "| machine code | {} |", sizes.join(" | "))?;
    let compiling: Vec<_> =
        guests.iter().map(|g| format!("{:.0} ms", g.compile_time.as_secs_f64() * 1e3)).collect();
    writeln!(out, "| compiling, one thread | {} |", compiling.join(" | "))?;
    for guest in guests {
        let ticks = guest.store.data();
        if ticks.number > 0 {
            writeln!(out, "\n{} ticks, {} turns given away", ticks.number, ticks.turns)?;
        }
    }
    Ok(())
}
