//! The log of one partition: what its guest writes, cut into lines of bounded length and bounded in rate, so
//! that a guest that logs without end fills neither disk nor pipe.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hvm_types::ReplicaId;

use crate::{LogLevel, LogLine, LogSink, LogSource};

/// Lines that are kept per second and partition.
const LINES_PER_SECOND: u32 = 1_000;
const WINDOW: Duration = Duration::from_secs(1);

/// Where the lines of one partition go.
pub(crate) struct PartitionLog {
    id: ReplicaId,
    sink: Arc<dyn LogSink>,
    rate: Mutex<Rate>,
}

struct Rate {
    window_began: Instant,
    lines: u32,
    dropped: u64,
}

impl PartitionLog {
    pub(crate) fn new(id: ReplicaId, sink: Arc<dyn LogSink>) -> Arc<Self> {
        let rate = Mutex::new(Rate { window_began: Instant::now(), lines: 0, dropped: 0 });
        Arc::new(Self { id, sink, rate })
    }

    /// The partition.
    pub(crate) const fn id(&self) -> &ReplicaId {
        &self.id
    }

    /// Writes what a guest said, line by line, as far as its rate allows. False where that is used up.
    pub(crate) fn guest(&self, level: LogLevel, source: LogSource, text: &str) -> bool {
        let mut rest = text;
        while let Some(line) = rest.lines().next() {
            if !self.write(level, source, line) {
                // All that follows comes too late as well: counting it costs nothing to speak of.
                let more = memchr::memchr_iter(b'\n', rest.as_bytes()).count();
                self.drop_lines((more + usize::from(!rest.ends_with('\n'))).saturating_sub(1) as u64);
                return false;
            }
            rest = rest.split_once('\n').map_or("", |(_, rest)| rest);
        }
        true
    }

    /// Whether a line would pass now. Where none would, whoever has many to write need not make them: they are counted.
    pub(crate) fn has_room(&self, lines: u64, now: Instant) -> bool {
        let mut rate = self.rate.lock().unwrap_or_else(PoisonError::into_inner);
        let has_room = rate.lines < LINES_PER_SECOND || now.duration_since(rate.window_began) >= WINDOW;
        if !has_room {
            rate.dropped += lines;
        }
        has_room
    }

    /// Counts lines that came too late.
    pub(crate) fn drop_lines(&self, lines: u64) {
        self.rate.lock().unwrap_or_else(PoisonError::into_inner).dropped += lines;
    }

    /// Writes a line of the HVM itself.
    pub(crate) fn host(&self, level: LogLevel, text: &str) {
        self.write(level, LogSource::Hvm, text);
    }

    fn write(&self, level: LogLevel, source: LogSource, line: &str) -> bool {
        let (admitted, dropped) = self.admit(Instant::now());
        if dropped > 0 {
            let note = format!("{dropped} lines were dropped: more than {LINES_PER_SECOND} in a second");
            self.pass_on(LogLevel::Warn, LogSource::Hvm, note);
        }
        if admitted {
            self.pass_on(level, source, cut(line));
        }
        admitted
    }

    fn pass_on(&self, level: LogLevel, source: LogSource, text: String) {
        let line = LogLine { unix_millis: unix_millis(), level, source, text };
        self.sink.write(&self.id, line);
    }

    /// Whether one more line may pass, and how many did not in the second before.
    fn admit(&self, now: Instant) -> (bool, u64) {
        let mut rate = self.rate.lock().unwrap_or_else(PoisonError::into_inner);
        let mut dropped = 0;
        if now.duration_since(rate.window_began) >= WINDOW {
            dropped = std::mem::take(&mut rate.dropped);
            rate.window_began = now;
            rate.lines = 0;
        }
        if rate.lines == LINES_PER_SECOND {
            rate.dropped += 1;
            return (false, dropped);
        }
        rate.lines += 1;
        (true, dropped)
    }
}

/// The time that log lines and commits carry.
pub(crate) fn unix_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn cut(line: &str) -> String {
    if line.len() <= LogLine::MAX_BYTES {
        return line.to_owned();
    }
    let end = line.floor_char_boundary(LogLine::MAX_BYTES - '…'.len_utf8());
    format!("{}…", &line[..end])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TracingSink;

    #[test]
    fn a_second_takes_so_many_lines_and_counts_the_others() {
        let id = "d/g/0".parse().expect("a valid id");
        let log = PartitionLog::new(id, Arc::new(TracingSink));
        let start = Instant::now();
        for _ in 0..LINES_PER_SECOND {
            assert_eq!(log.admit(start), (true, 0));
        }
        assert_eq!(log.admit(start), (false, 0));
        assert_eq!(log.admit(start), (false, 0));
        assert!(!log.has_room(5, start), "the second is full");
        assert_eq!(log.admit(start + WINDOW), (true, 7));
        assert!(log.has_room(5, start + WINDOW), "another second has begun");
    }

    #[test]
    fn what_comes_too_late_is_counted_at_once() {
        let id = "d/g/0".parse().expect("a valid id");
        let log = PartitionLog::new(id, Arc::new(TracingSink));
        let text = "\n".repeat(60_000) + "the end";
        assert!(!log.guest(LogLevel::Info, LogSource::Logging, &text));
        let late = log.admit(Instant::now() + 2 * WINDOW);
        assert_eq!(late, (true, 60_001 - u64::from(LINES_PER_SECOND)));
    }

    #[test]
    fn a_long_line_is_cut_at_a_character() {
        let cut = cut(&"ä".repeat(LogLine::MAX_BYTES));
        assert!(cut.len() <= LogLine::MAX_BYTES && cut.ends_with("ä…"), "{} bytes", cut.len());
    }
}
