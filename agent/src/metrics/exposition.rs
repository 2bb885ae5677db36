//! The names of the metrics and what they mean. Units are base units, counters end in `_total`.

use hvm_types::{Meter, RequestOutcome};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, LabelSetEncoder, text};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use super::scope::RowLabels;
use super::snapshot::{Row, Snapshot};
use super::write::{ConstHistogram, about};

/// The text of one answer.
pub(super) fn text(snapshot: Snapshot) -> Result<String, std::fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(snapshot));
    let mut text = String::new();
    text::encode(&mut text, &registry)?;
    Ok(text)
}

/// The labels of a row, and one more.
struct With<'l, V>(&'l RowLabels, &'static str, V);

impl<V: std::fmt::Display> EncodeLabelSet for With<'_, V> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> std::fmt::Result {
        use prometheus_client::encoding::EncodeLabel as _;
        self.0.encode(encoder)?;
        (self.1, self.2.to_string()).encode(encoder.encode_label())
    }
}

fn gauge(value: impl TryInto<i64>) -> ConstGauge<i64> {
    ConstGauge::new(value.try_into().unwrap_or(i64::MAX))
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let encoder = &mut encoder;
        self.encode_process(encoder)?;
        self.encode_host(encoder)?;
        self.encode_meters(encoder)?;
        self.encode_gauges(encoder)?;
        about("hvm_request_duration", "Time from taking a request in to the end of its guest's work")
            .in_seconds()
            .write(
                encoder,
                self.latencies.iter().map(|(labels, seen)| (Labels(labels), ConstHistogram(seen))),
            )
    }
}

/// Labels by reference.
struct Labels<'l>(&'l RowLabels);

impl EncodeLabelSet for Labels<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> std::fmt::Result {
        self.0.encode(encoder)
    }
}

impl Snapshot {
    fn encode_process(&self, encoder: &mut DescriptorEncoder<'_>) -> std::fmt::Result {
        let process = &self.process;
        about("hvm_build", "The version of this program")
            .write_one(encoder, Info::new([("version", env!("CARGO_PKG_VERSION"))]))?;
        about("process_cpu", "Processor time of this process")
            .in_seconds()
            .write_one(encoder, ConstCounter::new(process.cpu.as_secs_f64()))?;
        let known = [
            (about("process_resident_memory", "Memory of this process").in_bytes(), process.resident_bytes),
            (about("process_open_fds", "Open file descriptors of this process"), process.open_fds),
            (about("process_max_fds", "File descriptors that this process may have open"), process.max_fds),
        ];
        known.into_iter().try_for_each(|(about, value)| match value {
            Some(value) => about.write_one(encoder, gauge(value)),
            None => Ok(()),
        })
    }

    fn encode_host(&self, encoder: &mut DescriptorEncoder<'_>) -> std::fmt::Result {
        let host = &self.host;
        about(
            "hvm_host_cpu",
            "Processor time of the host and of its compiling processes that is no partition's",
        )
        .in_seconds()
        .write_one(encoder, ConstCounter::new(self.host_cpu.as_secs_f64()))?;
        let children = host.compile_children;
        about("hvm_compile_cpu", "Processor time of the processes that compiled, when they have ended")
            .in_seconds()
            .write_one(encoder, ConstCounter::new(children.cpu.as_secs_f64()))?;
        about("hvm_compile_processes", "Processes that compiled and have ended, well or not")
            .write_one(encoder, ConstCounter::new(children.ended))?;
        let states = self.states.iter().map(|(state, count)| ([("state", *state)], gauge(*count)));
        about("hvm_partitions", "Partitions and stateless replicas by state").write(encoder, states)?;
        let places = host.pools.iter().flat_map(|pool| {
            let counts = [("free", pool.free), ("used", pool.places.saturating_sub(pool.free))];
            let labels = |state| [("metering", pool.metering.as_str()), ("state", state)];
            counts.map(|(state, count)| (labels(state), gauge(count)))
        });
        about("hvm_pool_places", "Places for instances, by how those are metered").write(encoder, places)?;
        let waiting =
            host.pools.iter().map(|pool| ([("metering", pool.metering.as_str())], gauge(pool.waiting)));
        about("hvm_pool_waiting_requests", "Requests that wait for a place").write(encoder, waiting)?;
        let queues = host.queues.iter().enumerate();
        about("hvm_worker_queue_length", "What waits to be handed over to a worker")
            .write(encoder, queues.map(|(worker, length)| ([("worker", worker)], gauge(*length))))?;
        about("hvm_partitions_memory", "Memory that all partitions hold")
            .in_bytes()
            .write_one(encoder, gauge(host.memory.0))?;
        about("hvm_partitions_memory_limit", "Memory that all partitions may hold")
            .in_bytes()
            .write_one(encoder, gauge(host.memory_limit.0))?;
        about(
            "hvm_fenced_commits",
            "Commits that were refused because another host owned the partition by then",
        )
        .write_one(encoder, ConstCounter::new(host.fenced_commits))?;
        about("hvm_component_preparation", "Time to make a component ready, compiled now or before")
            .in_seconds()
            .write_one(encoder, ConstHistogram(&host.preparations))
    }

    fn encode_meters(&self, encoder: &mut DescriptorEncoder<'_>) -> std::fmt::Result {
        let seconds = |of: fn(&Meter) -> std::time::Duration| {
            let rows = self.rows.iter();
            rows.map(move |(labels, row)| (Labels(labels), ConstCounter::new(of(&row.meter).as_secs_f64())))
        };
        let count = |of: fn(&Meter) -> u64| {
            let rows = self.rows.iter();
            rows.map(move |(labels, row)| (Labels(labels), ConstCounter::new(of(&row.meter))))
        };
        about("hvm_cpu", "Processor time in the guest and in what the host did for it")
            .in_seconds()
            .write(encoder, seconds(|meter| meter.cpu))?;
        about("hvm_fuel", "Fuel, where metering is deterministic")
            .write(encoder, count(|meter| meter.fuel))?;
        about(
            "hvm_in_guest",
            "Time of requests in the guest, with what it awaits by itself and without what the host lets it wait for",
        )
            .in_seconds()
            .write(encoder, seconds(|meter| meter.wall))?;
        about(
            "hvm_throttled",
            "Time during which requests waited for their partition's share of the processor",
        )
        .in_seconds()
        .write(encoder, seconds(|meter| meter.throttled))?;
        about("hvm_memory", "Memory held, over time")
            .in_byte_seconds()
            .write(encoder, count(|meter| meter.memory_byte_seconds))?;
        about("hvm_state_read", "State read by the guest")
            .in_bytes()
            .write(encoder, count(|meter| meter.state_read_bytes))?;
        about("hvm_state_written", "State committed")
            .in_bytes()
            .write(encoder, count(|meter| meter.state_written_bytes))?;
        about("hvm_received", "Received from clients, and by calls out")
            .in_bytes()
            .write(encoder, count(|meter| meter.received_bytes))?;
        about("hvm_sent", "Sent to clients, and by calls out")
            .in_bytes()
            .write(encoder, count(|meter| meter.sent_bytes))?;
        let requests = self.rows.iter().flat_map(|(labels, row)| {
            RequestOutcome::ALL.map(|outcome| {
                let labels = With(labels, "outcome", outcome.as_str());
                (labels, ConstCounter::new(row.meter.requests_of(outcome)))
            })
        });
        about("hvm_requests", "Requests by how they ended").write(encoder, requests)
    }

    fn encode_gauges(&self, encoder: &mut DescriptorEncoder<'_>) -> std::fmt::Result {
        let now = |of: fn(&Row) -> u64| {
            let rows = self.rows.iter();
            rows.map(move |(labels, row)| (Labels(labels), gauge(of(row))))
        };
        about("hvm_held_memory", "Memory held now").in_bytes().write(encoder, now(|row| row.memory_bytes))?;
        about("hvm_stored", "Durable state held now")
            .in_bytes()
            .write(encoder, now(|row| row.stored_bytes))?;
        about("hvm_mailbox_requests", "Requests that wait for their turn")
            .write(encoder, now(|row| u64::from(row.mailbox)))?;
        about("hvm_instances", "Instances in memory").write(encoder, now(|row| u64::from(row.instances)))?;
        about("hvm_throttled_requests", "Requests that wait for their partition's share of the processor")
            .write(encoder, now(|row| u64::from(row.throttled)))
    }
}
