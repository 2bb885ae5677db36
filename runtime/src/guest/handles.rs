//! What a guest makes the host keep behind its handles, in the account of its partition: header fields and the parts
//! of outgoing requests.
//!
//! Every call that may make it more adds what it may add at most; only when that exceeds what the account was told
//! are the handles looked through. Bodies are counted by [`super::unsent`].

use http::HeaderMap;
use wasmtime::component::ResourceTable;
use wasmtime_wasi_http::FieldMap;
use wasmtime_wasi_http::p2::bindings::http::types::{Method, Scheme};
use wasmtime_wasi_http::p2::types::{HostIncomingResponse, HostOutgoingRequest, HostOutgoingResponse};

use crate::Trap;
use crate::memory::Limiter;

/// Room that every instance has from the start.
const BASE_BYTES: u64 = 32 << 10;
/// Room is taken and given back in such pieces.
const STEP_BYTES: u64 = 64 << 10;
/// A handle, without what is behind it.
const HANDLE_BYTES: u64 = 256;
/// A field in a map of fields, beside its name and value: two buckets of the table and their slots in its index.
const FIELD_BYTES: u64 = 256;

/// What is behind the handles of one instance.
#[derive(Debug)]
pub(crate) struct Handles {
    /// No less than what there is.
    noted: u64,
    /// What the account was told.
    charged: u64,
}

impl Handles {
    pub(crate) fn new(limiter: &mut Limiter) -> Result<Self, Trap> {
        limiter.hold(BASE_BYTES)?;
        Ok(Self { noted: 0, charged: BASE_BYTES })
    }

    /// Takes note of fields of so many bytes.
    pub(crate) fn note_fields(
        &mut self,
        fields: usize,
        bytes: usize,
        table: &mut ResourceTable,
        limiter: &mut Limiter,
    ) -> Result<(), Trap> {
        self.note(fields as u64 * FIELD_BYTES + bytes as u64, table, limiter)
    }

    /// Takes note of a call that made it more by no more than `bytes` and a handle.
    pub(crate) fn note(
        &mut self,
        bytes: u64,
        table: &mut ResourceTable,
        limiter: &mut Limiter,
    ) -> Result<(), Trap> {
        self.noted += bytes + HANDLE_BYTES;
        if self.noted <= self.charged {
            return Ok(());
        }
        self.noted = table.iter_mut().map(|handle| HANDLE_BYTES + bytes_behind(handle)).sum();
        if self.noted > self.charged {
            // With room for as much again, so that a guest that takes more and more is looked through seldom.
            let missing = (self.noted * 2 - self.charged).next_multiple_of(STEP_BYTES);
            limiter.hold(missing)?;
            self.charged += missing;
        }
        Ok(())
    }

    /// A request has ended: what it needed more than others is given back.
    pub(crate) fn end(&mut self, table: &mut ResourceTable, limiter: &mut Limiter) {
        if self.charged > BASE_BYTES {
            self.noted = table.iter_mut().map(|handle| HANDLE_BYTES + bytes_behind(handle)).sum();
            if self.noted < BASE_BYTES {
                limiter.release(self.charged - BASE_BYTES);
                self.charged = BASE_BYTES;
            }
        }
    }
}

fn bytes_behind(handle: &mut dyn std::any::Any) -> u64 {
    if let Some(fields) = handle.downcast_ref::<FieldMap>() {
        return bytes_of(fields);
    }
    if let Some(request) = handle.downcast_ref::<HostOutgoingRequest>() {
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::len) as u64;
        let method = if let Method::Other(method) = &request.method { method.len() as u64 } else { 0 };
        let scheme = if let Some(Scheme::Other(scheme)) = &request.scheme { scheme.len() as u64 } else { 0 };
        let line = method + scheme + text(&request.authority) + text(&request.path_with_query);
        return line + bytes_of(&request.headers);
    }
    if let Some(response) = handle.downcast_ref::<HostOutgoingResponse>() {
        return bytes_of(&response.headers);
    }
    if let Some(response) = handle.downcast_ref::<HostIncomingResponse>() {
        return bytes_of(&response.headers);
    }
    0
}

fn bytes_of(fields: &HeaderMap) -> u64 {
    let content = fields.iter().map(|(name, value)| name.as_str().len() + value.len()).sum::<usize>();
    fields.len().max(fields.capacity() / 2) as u64 * FIELD_BYTES + content as u64
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use hvm_types::ByteSize;

    use super::*;
    use crate::memory::{HostMemory, MemoryAccount};

    #[test]
    fn what_is_behind_handles_is_in_the_account_and_leaves_it_with_them() {
        let account =
            MemoryAccount::new(ByteSize::mib(1), HostMemory::new(ByteSize::mib(1024)), Arc::default());
        let mut limiter = Limiter::new(Arc::clone(&account));
        let mut handles = Handles::new(&mut limiter).expect("there is room");
        let mut table = ResourceTable::new();
        let request = || HostOutgoingRequest {
            method: Method::Get,
            scheme: None,
            authority: None,
            path_with_query: Some("x".repeat(8 << 10)),
            headers: FieldMap::default(),
            body: None,
        };
        let mut kept = Vec::new();
        let denied = loop {
            kept.push(table.push(request()).expect("the table has room"));
            if let Err(denied) = handles.note(8 << 10, &mut table, &mut limiter) {
                break denied;
            }
            assert!(account.observe().0 >= kept.len() as u64 * (8 << 10), "{} of them", kept.len());
        };
        assert_eq!(denied, Trap::Memory { limit: ByteSize::mib(1) });
        // What is told in advance is no more than what there is.
        assert!((60..=127).contains(&kept.len()), "{}", kept.len());
        for request in kept {
            table.delete(request).expect("it is there");
        }
        handles.end(&mut table, &mut limiter);
        assert_eq!(account.observe(), ByteSize(BASE_BYTES));
    }
}
