//! The rounds: in each, one server after the other is started, loaded and stopped, so that a change of the machine
//! meets all of them.

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use super::LoadError;
use super::contestant::{Contestant, FLOOR, HVM, Programs, contestants};
use super::samples::{LoadSample, LoadSamples, StartSample, mebibytes, milliseconds};
use super::wrk::Wrk;
use crate::Stolen;

/// Connections at the same time, the most first: a server that has served many is warm for few.
pub(crate) const CONNECTIONS: [u32; 3] = [64, 32, 1];

/// Load before the first measurement of each start.
const WARM_UP: Duration = Duration::from_secs(1);

/// What to measure.
#[derive(Debug, Clone)]
pub struct LoadPlan {
    /// Where the programs are.
    pub programs: Programs,
    /// A folder for what is made on the way.
    pub work: PathBuf,
    /// Rounds.
    pub rounds: u32,
    /// Length of each load.
    pub load: Duration,
    /// Only servers whose names contain one of these; all where there are none.
    pub only: Vec<String>,
}

/// Measures all servers. What goes on is told on stderr.
///
/// # Errors
/// Where a server does not start, or fails a request.
pub fn measure(plan: &LoadPlan) -> Result<LoadSamples, LoadError> {
    let wanted = |contestant: &Contestant| {
        let is_asked = |part: &String| contestant.name.contains(part.as_str());
        plan.only.is_empty() || contestant.name == FLOOR || plan.only.iter().any(is_asked)
    };
    let all: Vec<_> = contestants(&plan.programs, &plan.work)?.into_iter().filter(wanted).collect();
    let wrk = Wrk::new(&plan.programs.wrk, &plan.work, None)?;
    let mut answers = Vec::new();
    for contestant in &all {
        // Fills the caches, of code and of files, that a second start finds.
        say(&format!("preparing {}", contestant.name));
        answers.push((contestant.name, contestant.start()?.answer.clone()));
    }
    check_answers(&answers)?;
    let mut samples = LoadSamples::default();
    for round in 1..=plan.rounds {
        let before = Stolen::now();
        for contestant in &all {
            one_life(contestant, &wrk, round, plan.load, &mut samples)?;
        }
        samples.stolen.push(before.share_since());
    }
    Ok(samples)
}

fn one_life(
    contestant: &Contestant,
    wrk: &Wrk,
    round: u32,
    load: Duration,
    samples: &mut LoadSamples,
) -> Result<(), LoadError> {
    let failed = |error| LoadError::new(format!("{}: {error}", contestant.name));
    let server = contestant.start().map_err(failed)?;
    wrk.run(server.address, CONNECTIONS[0], WARM_UP).map_err(failed)?;
    for connections in CONNECTIONS {
        let before = server.cpu()?;
        let answered = wrk.run(server.address, connections, load).map_err(failed)?;
        let sample = LoadSample::new(
            contestant.name,
            round,
            connections,
            answered,
            server.cpu()?.saturating_sub(before),
        );
        say(&format!(
            "round {round}, {}, {connections} connections: {:.2} CPU s per 100,000, {:.0}/s, p99 {:.2} ms",
            contestant.name, sample.cpu, sample.per_second, sample.p99_ms
        ));
        samples.loads.push(sample);
    }
    samples.starts.push(StartSample {
        server: contestant.name,
        cold_start_ms: milliseconds(server.cold_start),
        resident_mib: mebibytes(server.resident()?),
    });
    Ok(())
}

/// The floor must answer with the bytes that we answer with, but for the date.
fn check_answers(answers: &[(&str, Vec<u8>)]) -> Result<(), LoadError> {
    let of = |name| answers.iter().find(|(known, _)| *known == name).map(|(_, answer)| lines(answer));
    match (of(HVM), of(FLOOR)) {
        (Some(ours), Some(floor)) if ours != floor => {
            Err(LoadError::new(format!("the floor answers {floor:?} and the HVM {ours:?}")))
        }
        _ => Ok(()),
    }
}

/// The lines of an answer in any order; of the date its name, of the partition the length.
fn lines(answer: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(answer);
    let known = |line: &str| match line.split_once(": ") {
        Some(("date", _)) => "date".to_owned(),
        Some(("hvm-partition", name)) => format!("hvm-partition: {} bytes", name.len()),
        _ => line.to_owned(),
    };
    let mut lines: Vec<_> = text.lines().map(known).collect();
    lines.sort();
    lines
}

/// Tells on stderr what goes on.
pub(crate) fn say(what: &str) {
    // Nobody may be reading.
    drop(writeln!(std::io::stderr(), "{what}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_compared_without_their_dates() {
        let first = b"HTTP/1.1 200 OK\r\ndate: Sat\r\nhvm-partition: a/b/0\r\n\r\nhello\n";
        let second = b"HTTP/1.1 200 OK\r\nhvm-partition: a/b/1\r\ndate: Sun\r\n\r\nhello\n";
        assert_eq!(lines(first), lines(second));
        assert_ne!(lines(first), lines(b"HTTP/1.1 200 OK\r\ndate: Sat\r\n\r\nhello\n"));
    }
}
