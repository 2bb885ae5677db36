//! What the app says of one airport, and the same computed from the file.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::flights::Flight;

/// The flights of one airport of origin.
#[derive(Debug, Default, Clone, PartialEq, Deserialize)]
pub(crate) struct Board {
    pub(crate) flights: u64,
    /// Sum of the delays, in minutes.
    pub(crate) delay_sum: i64,
    /// Flights by airport of destination.
    pub(crate) destinations: BTreeMap<String, u64>,
}

impl Board {
    /// Counts `flight` so many times.
    pub(crate) fn add(&mut self, flight: &Flight, times: u64) {
        if times > 0 {
            self.flights += times;
            self.delay_sum += flight.delay * times.cast_signed();
            *self.destinations.entry(flight.destination.clone()).or_default() += times;
        }
    }

    /// Mean delay in minutes.
    #[expect(clippy::cast_precision_loss, reason = "sums of minutes are far below 2^52")]
    pub(crate) fn mean_delay(&self) -> f64 {
        self.delay_sum as f64 / self.flights as f64
    }
}

/// The boards of all airports, each flight counted `times(its number)` times.
pub(crate) fn compute(flights: &[Flight], times: impl Fn(usize) -> u64) -> BTreeMap<String, Board> {
    let mut boards = BTreeMap::<String, Board>::new();
    for (number, flight) in flights.iter().enumerate() {
        boards.entry(flight.origin.clone()).or_default().add(flight, times(number));
    }
    boards
}
