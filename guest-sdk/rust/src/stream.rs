//! Whole bodies over WASI's streams.

use wasip2::io::streams::{InputStream, OutputStream, StreamError};

/// What is read at once.
const CHUNK_BYTES: u64 = 64 * 1024;

/// Reads to the end. Waits only where nothing is there: most bodies are whole, or empty, when they are read.
pub(crate) fn read_all(stream: &InputStream) -> Result<Vec<u8>, String> {
    let mut all = Vec::new();
    let mut next = stream.read(CHUNK_BYTES);
    loop {
        match next {
            Ok(chunk) if chunk.is_empty() => {
                next = stream.blocking_read(CHUNK_BYTES);
                continue;
            }
            Ok(chunk) if all.is_empty() => all = chunk,
            Ok(chunk) => all.extend_from_slice(&chunk),
            Err(StreamError::Closed) => return Ok(all),
            Err(StreamError::LastOperationFailed(error)) => return Err(error.to_debug_string()),
        }
        next = stream.read(CHUNK_BYTES);
    }
}

/// Writes everything, as much at once as the host takes. Does not wait until it is sent.
pub(crate) fn write_all(stream: &OutputStream, mut bytes: &[u8]) -> Result<(), String> {
    let reason = |error| match error {
        StreamError::Closed => "the receiver is gone".to_owned(),
        StreamError::LastOperationFailed(error) => error.to_debug_string(),
    };
    while !bytes.is_empty() {
        let permitted = usize::try_from(stream.check_write().map_err(reason)?).unwrap_or(usize::MAX);
        if permitted == 0 {
            stream.subscribe().block();
            continue;
        }
        let (now, rest) = bytes.split_at(permitted.min(bytes.len()));
        stream.write(now).map_err(reason)?;
        bytes = rest;
    }
    Ok(())
}
