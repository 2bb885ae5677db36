//! What a guest asks of its host beside state: time, logs, configuration, other servers.

use hvm_guest::{Request, Response, config, http, log};
use wasip2::clocks::monotonic_clock;
use wasip2::io::streams::OutputStream;

use crate::number;

const NANOSECONDS_PER_MS: u64 = 1_000_000;

pub fn answer(action: &str, request: &Request) -> Option<Response> {
    Some(match action {
        "sleep" => {
            sleep(number(request, "ms").unwrap_or(100));
            Response::status(204)
        }
        "config" => configured(request).unwrap_or_else(Response::from),
        "log" => {
            let level = match request.query_param("level").as_deref() {
                Some("trace") => log::Level::Trace,
                Some("debug") => log::Level::Debug,
                Some("warn") => log::Level::Warn,
                Some("error") => log::Level::Error,
                Some("critical") => log::Level::Critical,
                _ => log::Level::Info,
            };
            log::write(level, "probe", &message(request));
            Response::status(204)
        }
        "stdout" => print(&wasip2::cli::stdout::get_stdout(), request),
        "stderr" => print(&wasip2::cli::stderr::get_stderr(), request),
        "random" => Response::text(wasip2::random::random::get_random_u64().to_string()),
        "fetch" => fetch(request),
        _ => return None,
    })
}

pub fn sleep(ms: u64) {
    monotonic_clock::subscribe_duration(ms.saturating_mul(NANOSECONDS_PER_MS)).block();
}

fn message(request: &Request) -> String {
    request.query_param("m").unwrap_or_default()
}

fn print(stream: &OutputStream, request: &Request) -> Response {
    let line = message(request) + "\n";
    match stream.blocking_write_and_flush(line.as_bytes()) {
        Ok(()) => Response::status(204),
        Err(error) => Response::error(500, &error.to_string()),
    }
}

/// The value of `k`, or without it all of them as `key=value` lines.
fn configured(request: &Request) -> Result<Response, config::Error> {
    let Some(key) = request.query_param("k") else {
        let all = config::get_all()?;
        return Ok(Response::text(
            all.into_iter().map(|(key, value)| format!("{key}={value}\n")).collect::<String>(),
        ));
    };
    Ok(config::get(&key)?.map_or_else(|| Response::error(404, "none"), Response::text))
}

/// GET of `url`, or POST of the request's body where it has one: 200 with `<status> <body>`, 502 with why not.
fn fetch(request: &Request) -> Response {
    let url = request.query_param("url").unwrap_or_default();
    let call = if request.body.is_empty() {
        http::Call::new("GET", &url)
    } else {
        http::Call::new("POST", &url).body(request.body.clone())
    };
    match call.send() {
        Ok(response) => {
            Response::text(format!("{} {}", response.status, String::from_utf8_lossy(&response.body)))
        }
        Err(error) => Response::error(502, &error.reason),
    }
}
