//! The first and the last block of a state file: lines of text, each a name, a space and a value. Names that a
//! reader does not know are passed over, so that later versions can add some.

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};
use std::str::FromStr;
use std::time::Duration;

use hvm_types::{ByteSize, Digest, Epoch, Meter, ReplicaId, Sequence};

use crate::state::ScanHead;

/// Longest value of a line.
const MAX_VALUE_BYTES: usize = 1024;

/// Where a partition's state comes from, as far as the exporter knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// The image that ran, by its manifest.
    pub image: Option<Digest>,
    /// The app's name and version.
    pub app: Option<String>,
    /// The host.
    pub host: Option<String>,
    /// When the file was written, in milliseconds since 1970.
    pub exported_unix_millis: u64,
}

/// What stands at the beginning of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileHeader {
    /// The partition.
    pub partition: ReplicaId,
    /// Where it was.
    pub origin: Origin,
    /// The numbers of the view that the file holds.
    pub head: ScanHead,
}

/// What a whole file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSummary {
    /// Its beginning.
    pub header: FileHeader,
    /// Keys.
    pub entries: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// The digest of the whole file, as `sha256sum` prints it.
    pub digest: Digest,
}

/// What stands at the end of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FileEnd {
    pub(super) counts: Counts,
    /// Of everything before the end's block.
    pub(super) digest: Digest,
}

/// What was written or read of a file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) entries: u64,
    /// Bytes of keys and values.
    pub(super) stored: u64,
    pub(super) answers: u64,
    /// Blocks that a reader may pass over.
    pub(super) optional: u64,
}

impl Counts {
    /// What differs from the numbers of the partition.
    pub(super) fn compare(&self, head: &ScanHead) -> Result<(), String> {
        if self.stored != head.stored.0 {
            let counted = head.stored.0;
            return Err(format!("its keys and values have {} bytes and it counts {counted}", self.stored));
        }
        if self.answers != head.answers {
            return Err(format!("it has {} answers and counts {}", self.answers, head.answers));
        }
        Ok(())
    }
}

impl FileHeader {
    pub(super) fn to_text(&self) -> String {
        let Self { partition, origin, head } = self;
        let mut lines = Lines::default();
        lines.add("partition", partition);
        lines.add_some("host", origin.host.as_ref());
        lines.add_some("app", origin.app.as_ref());
        lines.add_some("image", origin.image);
        lines.add_some("state-schema", head.schema);
        lines.add("exported-unix-millis", origin.exported_unix_millis);
        lines.add("epoch", head.epoch.0);
        lines.add("sequence", head.sequence.0);
        lines.add("committed-unix-millis", head.unix_millis);
        lines.add("stored-bytes", head.stored.0);
        lines.add("answers", head.answers);
        for (name, count) in counters(&head.meter) {
            lines.add(&format!("meter-{name}"), count);
        }
        lines.0
    }

    pub(super) fn from_text(text: &[u8]) -> Result<Self, String> {
        let values = Values::read(text)?;
        let origin = Origin {
            image: values.get("image")?,
            app: values.get("app")?,
            host: values.get("host")?,
            exported_unix_millis: values.need("exported-unix-millis")?,
        };
        let mut meter = Meter::default();
        for (name, _) in counters(&Meter::default()) {
            set_counter(&mut meter, name, values.get(&format!("meter-{name}"))?.unwrap_or(0));
        }
        let head = ScanHead {
            epoch: Epoch(values.need("epoch")?),
            sequence: Sequence(values.need("sequence")?),
            unix_millis: values.need("committed-unix-millis")?,
            stored: ByteSize(values.need("stored-bytes")?),
            answers: values.need("answers")?,
            schema: values.get("state-schema")?,
            meter,
        };
        Ok(Self { partition: values.need("partition")?, origin, head })
    }
}

impl FileEnd {
    pub(super) fn to_text(&self) -> String {
        let Counts { entries, stored, answers, optional } = self.counts;
        let mut lines = Lines::default();
        lines.add("entries", entries);
        lines.add("stored-bytes", stored);
        lines.add("answers", answers);
        lines.add("optional-blocks", optional);
        lines.add("digest", self.digest);
        lines.0
    }

    pub(super) fn from_text(text: &[u8]) -> Result<Self, String> {
        let values = Values::read(text)?;
        let counts = Counts {
            entries: values.need("entries")?,
            stored: values.need("stored-bytes")?,
            answers: values.need("answers")?,
            optional: values.need("optional-blocks")?,
        };
        Ok(Self { counts, digest: values.need("digest")? })
    }
}

#[derive(Default)]
struct Lines(String);

impl Lines {
    fn add(&mut self, name: &str, value: impl Display) {
        // What comes from a name of a host or an app must not begin a line of its own.
        let value: String = value.to_string().chars().filter(|c| !c.is_control()).take(256).collect();
        writeln!(self.0, "{name} {value}").expect("a string takes everything");
    }

    fn add_some(&mut self, name: &str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.add(name, value);
        }
    }
}

struct Values<'a>(BTreeMap<&'a str, &'a str>);

impl<'a> Values<'a> {
    fn read(text: &'a [u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(text).map_err(|_| "its lines are not text".to_owned())?;
        let mut values = BTreeMap::new();
        let lines = text.strip_suffix('\n').ok_or("its last line does not end")?.split('\n');
        for line in lines {
            let (name, value) = line.split_once(' ').ok_or("a line has no value")?;
            if value.len() > MAX_VALUE_BYTES || values.insert(name, value).is_some() {
                return Err("a line is too long or there twice".to_owned());
            }
        }
        Ok(Self(values))
    }

    fn get<T: FromStr>(&self, name: &str) -> Result<Option<T>, String> {
        let Some(value) = self.0.get(name) else { return Ok(None) };
        value.parse().map(Some).map_err(|_| format!("its `{name}` is not one"))
    }

    fn need<T: FromStr>(&self, name: &str) -> Result<T, String> {
        self.get(name)?.ok_or_else(|| format!("it has no `{name}`"))
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// The counters of a meter by the names that they have in a file.
fn counters(meter: &Meter) -> [(&'static str, u64); 17] {
    let Meter { cpu, fuel, wall, throttled, memory_byte_seconds, succeeded, rejected, errored, .. } = *meter;
    let Meter { trapped, limited, timed_out, failed, refused, .. } = *meter;
    let Meter { state_read_bytes, state_written_bytes, received_bytes, sent_bytes, .. } = *meter;
    [
        ("cpu-nanos", nanos(cpu)),
        ("fuel", fuel),
        ("wall-nanos", nanos(wall)),
        ("throttled-nanos", nanos(throttled)),
        ("memory-byte-seconds", memory_byte_seconds),
        ("succeeded", succeeded),
        ("rejected", rejected),
        ("errored", errored),
        ("trapped", trapped),
        ("limited", limited),
        ("timed-out", timed_out),
        ("failed", failed),
        ("refused", refused),
        ("state-read-bytes", state_read_bytes),
        ("state-written-bytes", state_written_bytes),
        ("received-bytes", received_bytes),
        ("sent-bytes", sent_bytes),
    ]
}

fn set_counter(meter: &mut Meter, name: &str, count: u64) {
    match name {
        "cpu-nanos" => meter.cpu = Duration::from_nanos(count),
        "fuel" => meter.fuel = count,
        "wall-nanos" => meter.wall = Duration::from_nanos(count),
        "throttled-nanos" => meter.throttled = Duration::from_nanos(count),
        "memory-byte-seconds" => meter.memory_byte_seconds = count,
        "succeeded" => meter.succeeded = count,
        "rejected" => meter.rejected = count,
        "errored" => meter.errored = count,
        "trapped" => meter.trapped = count,
        "limited" => meter.limited = count,
        "timed-out" => meter.timed_out = count,
        "failed" => meter.failed = count,
        "refused" => meter.refused = count,
        "state-read-bytes" => meter.state_read_bytes = count,
        "state-written-bytes" => meter.state_written_bytes = count,
        "received-bytes" => meter.received_bytes = count,
        _ => meter.sent_bytes = count,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> FileHeader {
        let mut meter = Meter::default();
        for (number, (name, _)) in (1..).zip(counters(&Meter::default())) {
            set_counter(&mut meter, name, number);
        }
        FileHeader {
            partition: "ledger/books/3".parse().expect("a replica"),
            origin: Origin {
                image: Some(Digest::of(b"image")),
                app: Some("ledger 1.0.0".to_owned()),
                host: Some("a".to_owned()),
                exported_unix_millis: 1_800_000_000_000,
            },
            head: ScanHead {
                epoch: Epoch(4),
                sequence: Sequence(99),
                unix_millis: 7,
                stored: ByteSize(55),
                answers: 3,
                schema: Some(2),
                meter,
            },
        }
    }

    #[test]
    fn a_header_reads_back_with_every_counter_in_its_place() {
        let header = header();
        let counts: Vec<u64> = counters(&header.head.meter).into_iter().map(|(_, count)| count).collect();
        assert_eq!(counts, (1..=17).collect::<Vec<_>>());
        let text = header.to_text();
        assert_eq!(FileHeader::from_text(text.as_bytes()), Ok(header.clone()));
        let later = format!("{text}colour green\n");
        assert_eq!(FileHeader::from_text(later.as_bytes()), Ok(header), "a later version adds lines");
    }

    #[test]
    fn a_header_with_a_line_missing_twice_or_wrong_is_refused() {
        let text = header().to_text();
        for line in text.lines() {
            let twice = format!("{text}{line}\n");
            assert!(FileHeader::from_text(twice.as_bytes()).is_err(), "{line} is there twice");
        }
        for needed in ["partition", "epoch", "sequence", "stored-bytes", "answers"] {
            let rest: String = text
                .lines()
                .filter(|l| !l.starts_with(&format!("{needed} ")))
                .fold(String::new(), |text, line| text + line + "\n");
            assert!(FileHeader::from_text(rest.as_bytes()).is_err(), "{needed} is missing");
        }
        assert!(FileHeader::from_text(text.replace("epoch 4", "epoch four").as_bytes()).is_err());
    }

    #[test]
    fn a_name_with_a_line_break_adds_no_line() {
        let mut forged = header();
        forged.origin.host = Some("a\nepoch 9".to_owned());
        let read = FileHeader::from_text(forged.to_text().as_bytes()).expect("a header");
        assert_eq!((read.head.epoch, read.origin.host.as_deref()), (Epoch(4), Some("aepoch 9")));
    }
}
