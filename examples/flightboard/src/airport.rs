//! What is known of one airport. All sums are whole numbers, so they are exact in any order.

use std::collections::BTreeMap;

use hvm_guest::Response;
use serde::{Deserialize, Serialize};

use crate::flight::{Code, Flight};

/// How many destinations `top` shows.
#[cfg(feature = "top")]
const TOP: usize = 5;

/// As it is stored.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Airport {
    flights: u64,
    /// Minutes.
    delay_sum: i64,
    /// Miles.
    distance_sum: u64,
    /// Flights by destination.
    destinations: BTreeMap<String, u64>,
}

/// The answer to a flight.
#[derive(Serialize)]
pub struct Summary<'a> {
    airport: &'a str,
    flights: u64,
}

/// The answer about an airport.
#[derive(Serialize)]
pub struct Board<'a> {
    airport: &'a str,
    flights: u64,
    delay_sum: i64,
    mean_delay: f64,
    distance_sum: u64,
    destinations: &'a BTreeMap<String, u64>,
}

/// One of the busiest destinations.
#[cfg(feature = "top")]
#[derive(Serialize)]
pub struct Destination<'a> {
    airport: &'a str,
    flights: u64,
}

impl Airport {
    pub fn add(&mut self, flight: &Flight, destination: Code) -> Result<(), Response> {
        let full = || Response::error(409, "the airport's sums are full");
        self.flights += 1;
        self.delay_sum = self.delay_sum.checked_add(i64::from(flight.delay)).ok_or_else(full)?;
        self.distance_sum = self.distance_sum.checked_add(u64::from(flight.distance)).ok_or_else(full)?;
        *self.destinations.entry(destination.as_str().to_owned()).or_default() += 1;
        Ok(())
    }

    pub fn summary<'a>(&self, code: &'a Code) -> Summary<'a> {
        Summary { airport: code.as_str(), flights: self.flights }
    }

    pub fn board<'a>(&'a self, code: &'a Code) -> Board<'a> {
        Board {
            airport: code.as_str(),
            flights: self.flights,
            delay_sum: self.delay_sum,
            mean_delay: self.delay_sum as f64 / self.flights as f64,
            distance_sum: self.distance_sum,
            destinations: &self.destinations,
        }
    }

    /// The busiest destinations, of equally busy ones the first of the alphabet.
    #[cfg(feature = "top")]
    pub fn top(&self) -> Vec<Destination<'_>> {
        let mut all: Vec<_> = self.destinations.iter().collect();
        all.sort_by_key(|(airport, flights)| (std::cmp::Reverse(**flights), *airport));
        all.into_iter()
            .take(TOP)
            .map(|(airport, flights)| Destination { airport, flights: *flights })
            .collect()
    }
}
