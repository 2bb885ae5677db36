//! One metric with its rows.

use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

/// What a metric is called and what it says. The unit becomes part of the name.
pub(super) struct About {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) unit: Option<Unit>,
}

pub(super) const fn about(name: &'static str, help: &'static str) -> About {
    About { name, help, unit: None }
}

impl About {
    pub(super) fn in_seconds(self) -> Self {
        Self { unit: Some(Unit::Seconds), ..self }
    }

    pub(super) fn in_bytes(self) -> Self {
        Self { unit: Some(Unit::Bytes), ..self }
    }

    pub(super) fn in_byte_seconds(self) -> Self {
        Self { unit: Some(Unit::Other("byte_seconds".to_owned())), ..self }
    }

    /// Writes the metric with its rows, or nothing where it has none.
    pub(super) fn write<L: EncodeLabelSet, M: EncodeMetric>(
        self,
        encoder: &mut DescriptorEncoder<'_>,
        rows: impl IntoIterator<Item = (L, M)>,
    ) -> std::fmt::Result {
        let mut rows = rows.into_iter().peekable();
        let Some((_, first)) = rows.peek() else { return Ok(()) };
        let kind = first.metric_type();
        let mut metric = encoder.encode_descriptor(self.name, self.help, self.unit.as_ref(), kind)?;
        for (labels, value) in rows {
            value.encode(metric.encode_family(&labels)?)?;
        }
        Ok(())
    }

    /// Writes a metric that has one value.
    pub(super) fn write_one(
        self,
        encoder: &mut DescriptorEncoder<'_>,
        value: impl EncodeMetric,
    ) -> std::fmt::Result {
        let metric =
            encoder.encode_descriptor(self.name, self.help, self.unit.as_ref(), value.metric_type())?;
        value.encode(metric)
    }
}

/// A histogram as it was read.
pub(super) struct ConstHistogram<'d>(pub(super) &'d hvm_runtime::Durations);

impl EncodeMetric for ConstHistogram<'_> {
    fn encode(&self, mut encoder: prometheus_client::encoding::MetricEncoder<'_>) -> std::fmt::Result {
        let end = |end: Option<std::time::Duration>| end.map_or(f64::INFINITY, |end| end.as_secs_f64());
        let buckets: Vec<_> = self.0.buckets.iter().map(|(bound, count)| (end(*bound), *count)).collect();
        encoder.encode_histogram::<NoLabelSet>(self.0.sum.as_secs_f64(), self.0.count(), &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}
