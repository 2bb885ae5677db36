//! One run of `wrk` against a server, and what it says.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::LoadError;

/// Prints what is read below, instead of rounded text.
const DONE: &str = r#"
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format("\nRESULT %d %d %d %d %d\n", summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99), e.connect + e.read + e.write + e.status + e.timeout))
end
"#;

/// The load generator and its scripts.
pub(crate) struct Wrk {
    program: PathBuf,
    script: PathBuf,
}

/// What one run says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Answered {
    pub(crate) requests: u64,
    pub(crate) time: Duration,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
}

impl Wrk {
    /// With `keys`, each request carries one of so many partition keys, chosen at random.
    pub(crate) fn new(program: &Path, work: &Path, keys: Option<u32>) -> Result<Self, LoadError> {
        let mut text = DONE.to_owned();
        if let Some(keys) = keys {
            write!(
                text,
                "local made = {{}}\nlocal keys = {keys}\n\
                 init = function(args)\n  math.randomseed(os.time())\n  for n = 1, keys do\n    \
                 wrk.headers['x-key'] = tostring(n)\n    made[n] = wrk.format('GET', '/')\n  end\nend\n\
                 request = function() return made[math.random(keys)] end\n"
            )
            .expect("writing to a string");
        }
        let name = keys.map_or_else(|| "plain.lua".to_owned(), |keys| format!("keys-{keys}.lua"));
        let script = work.join(name);
        std::fs::write(&script, text).map_err(LoadError::io(format!("write {}", script.display())))?;
        Ok(Self { program: program.to_owned(), script })
    }

    /// Sends requests over so many connections, each the next one when its answer is there.
    pub(crate) fn run(
        &self,
        address: SocketAddr,
        connections: u32,
        time: Duration,
    ) -> Result<Answered, LoadError> {
        let output = Command::new(&self.program)
            .args(["--threads", if connections == 1 { "1" } else { "2" }])
            .args(["--connections", &connections.to_string()])
            .args(["--duration", &format!("{}s", time.as_secs().max(1))])
            .arg("--script")
            .arg(&self.script)
            .arg(format!("http://{address}/"))
            .stdin(Stdio::null())
            .output()
            .map_err(LoadError::io("run wrk"))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (answered, errors) = parse(&text).ok_or_else(|| LoadError::new(format!("wrk said: {text}")))?;
        match errors {
            0 => Ok(answered),
            _ => Err(LoadError::new(format!("{errors} of {} requests failed", answered.requests))),
        }
    }
}

fn parse(text: &str) -> Option<(Answered, u64)> {
    let line = text.lines().find_map(|line| line.strip_prefix("RESULT "))?;
    let numbers: Vec<u64> = line.split(' ').map(|number| number.parse().ok()).collect::<Option<_>>()?;
    let [requests, time, p50, p99, errors] = numbers[..] else { return None };
    let [time, p50, p99] = [time, p50, p99].map(Duration::from_micros);
    Some((Answered { requests, time, p50, p99 }, errors))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_wrk_prints_is_read() {
        let (answered, errors) = parse("Running\n\nRESULT 1000 2000000 500 1500 3\n").expect("a result");
        assert_eq!((answered.requests, answered.time), (1000, Duration::from_secs(2)));
        assert_eq!((answered.p50.as_micros(), answered.p99.as_micros(), errors), (500, 1500, 3));
        assert_eq!(parse("unable to connect"), None);
    }
}
