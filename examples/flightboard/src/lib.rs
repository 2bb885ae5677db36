//! Flights, delays and destinations of each airport.
//!
//! Partitioned by airport, so that all flights that leave one are counted by one partition, one after another. It
//! remembers counts, never single flights: the host applies a repeated `Idempotency-Key` once.

mod airport;
mod flight;

use hvm_guest::{Request, Response, kv};

use airport::Airport;
use flight::{Code, Flight};

/// Which version answered.
const VERSION: &str = env!("CARGO_PKG_VERSION");

fn handle(request: Request) -> Response {
    answer(&request).unwrap_or_else(|refusal| refusal).with_header("flightboard-version", VERSION)
}

fn answer(request: &Request) -> Result<Response, Response> {
    let segments = request.segments();
    let parts: Vec<&str> = segments.iter().map(String::as_str).collect();
    match (request.method.as_str(), parts.as_slice()) {
        ("POST", ["airports", code, "flights"]) => add_flight(&Code::parse(code)?, &request.json()?),
        ("GET", ["airports", code]) => show(&Code::parse(code)?),
        ("GET", ["airports", code, "version"]) => {
            Code::parse(code)?;
            Ok(Response::text(format!("{VERSION}\n")))
        }
        #[cfg(feature = "top")]
        ("GET", ["airports", code, "top"]) => {
            let code = Code::parse(code)?;
            Ok(Response::json(&stored(&code)?.top()))
        }
        _ => Err(Response::error(
            404,
            "ask GET /airports/{code}, GET /airports/{code}/version or POST /airports/{code}/flights",
        )),
    }
}

/// One airport's record holds everything about it, so that a flight is one read and one write.
fn record_key(code: &Code) -> String {
    format!("airport/{}", code.as_str())
}

fn add_flight(code: &Code, flight: &Flight) -> Result<Response, Response> {
    let destination = flight.destination_from(code)?;
    let state = kv::open("default")?;
    let key = record_key(code);
    let mut airport: Airport = state.get_json(&key)?.unwrap_or_default();
    airport.add(flight, destination)?;
    state.set_json(&key, &airport)?;
    Ok(Response::json(&airport.summary(code)).with_status(201))
}

fn stored(code: &Code) -> Result<Airport, Response> {
    kv::open("default")?
        .get_json(&record_key(code))?
        .ok_or_else(|| Response::error(404, &format!("no flight has left {} yet", code.as_str())))
}

fn show(code: &Code) -> Result<Response, Response> {
    Ok(Response::json(&stored(code)?.board(code)))
}

hvm_guest::export!(handle);
