//! What a client sends: a flight, and the codes of the airports at its ends.

use hvm_guest::Response;
use serde::Deserialize;

/// An airport's IATA code: three capital letters. So one airport has at most 17,576 destinations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Code(String);

impl Code {
    pub fn parse(text: &str) -> Result<Self, Response> {
        if text.len() == 3 && text.bytes().all(|letter| letter.is_ascii_uppercase()) {
            return Ok(Self(text.to_owned()));
        }
        let shown: String = text.chars().take(20).collect();
        Err(Response::error(400, &format!("`{shown}` is no airport: use three capital letters, such as JFK")))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// One flight. Fields that are not used here (`date`, `id`) may be sent and are not looked at.
#[derive(Debug, Deserialize)]
pub struct Flight {
    /// Minutes; negative where it was early.
    pub delay: i32,
    /// Miles.
    pub distance: u32,
    origin: Option<String>,
    destination: String,
}

impl Flight {
    /// Where it went, after checking that it left from `airport`.
    pub fn destination_from(&self, airport: &Code) -> Result<Code, Response> {
        match self.origin.as_deref() {
            Some(origin) if origin != airport.as_str() => Err(Response::error(
                400,
                &format!("the flight leaves from another airport than {}: post it there", airport.as_str()),
            )),
            _ => Code::parse(&self.destination),
        }
    }
}
