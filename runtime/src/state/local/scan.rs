//! Reading all of a partition of the local engine, from one view.

use bytes::Bytes;
use hvm_types::{ByteSize, Digest, ReplicaId, Sequence};

use super::codec::unseal;
use super::layout::{self, AnswerEntry, Head, Number, OrderEntry};
use super::shared::Shared;
use super::stage::{corrupt, read_head, read_schema};
use super::store::View;
use crate::state::{
    AnswerPage, EntryPage, Idempotency, MAX_BUCKET_BYTES, ReadError, Scan, ScanHead, StoredResponse,
    WindowAnswer,
};

/// Above all keys: they are text, in which no byte has this value.
const AFTER_TEXT: u8 = 0xff;

pub(in crate::state) struct LocalScan {
    view: View,
    head: Head,
}

impl LocalScan {
    /// The partition as it is in the newest view.
    pub(in crate::state) fn of_newest(shared: &Shared, id: &ReplicaId) -> Result<Option<Self>, ReadError> {
        Self::new(shared.view()?, id)
    }

    /// The partition as it is in the view.
    pub(super) fn new(view: View, id: &ReplicaId) -> Result<Option<Self>, ReadError> {
        let Some(number) = view.get(&layout::name(id))? else { return Ok(None) };
        let (number, _): (Number, _) = unseal(&number).map_err(corrupt)?;
        let head = read_head(&view, number)?.ok_or_else(|| damaged("a partition has no head"))?;
        Ok(Some(Self { view, head }))
    }

    /// That there are as many answers as the window has places for them.
    fn check_window(&self) -> Result<(), ReadError> {
        let mut found = 0;
        for key in self.view.keys(&self.head.number.answers(), None) {
            key?;
            found += 1;
        }
        let expected = self.head.answers.next - self.head.answers.first;
        if found == expected {
            return Ok(());
        }
        Err(ReadError::Corrupt { what: format!("{found} answers are there, the window counts {expected}") })
    }

    fn answer(&self, ordinal: u64) -> Result<(WindowAnswer, usize), ReadError> {
        let number = self.head.number;
        let missing = || ReadError::Corrupt { what: format!("answer {ordinal} of its window is missing") };
        let order = self.view.get(&number.order(ordinal))?.ok_or_else(missing)?;
        let (order, _): (OrderEntry, _) = unseal(&order).map_err(corrupt)?;
        let stored = self.view.get(&number.answer(&order.key))?.ok_or_else(missing)?;
        let (entry, body): (AnswerEntry, _) = unseal(&stored).map_err(corrupt)?;
        let key = order.key.parse().map_err(|_| damaged("the key of an answer is not one"))?;
        let headers = entry.headers.into_iter().map(|(name, value)| (name, Bytes::from(value))).collect();
        let response = StoredResponse { status: entry.status, headers, body: Bytes::copy_from_slice(body) };
        let idempotency = Idempotency { key, request: Digest::from_bytes(entry.request), response };
        if order.bytes != idempotency.bytes() {
            return Err(ReadError::Corrupt {
                what: format!("answer {ordinal} has another size than it had"),
            });
        }
        let bytes = stored.len();
        Ok((WindowAnswer { idempotency, sequence: entry.sequence, unix_millis: order.unix_millis }, bytes))
    }
}

impl Scan for LocalScan {
    fn head(&self) -> Result<ScanHead, ReadError> {
        let Head { epoch, sequence, unix_millis, ref meter, ref answers, stored, .. } = self.head;
        Ok(ScanHead {
            epoch,
            sequence,
            // A partition without records has the time of none.
            unix_millis: if sequence == Sequence(0) { 0 } else { unix_millis },
            stored: ByteSize(stored),
            answers: answers.next - answers.first,
            schema: read_schema(&self.view, self.head.number)?,
            meter: meter.clone(),
        })
    }

    fn buckets(&self) -> Result<Vec<String>, ReadError> {
        let prefix = self.head.number.data();
        let mut buckets = Vec::new();
        let mut after: Option<Vec<u8>> = None;
        // One key of each bucket is read.
        while let Some(key) = self.view.keys(&prefix, after.as_deref()).next() {
            let key = key?;
            let name = bucket_of(&key[prefix.key.len()..])?;
            after = Some([&self.head.number.bucket(&name).key, [AFTER_TEXT].as_slice()].concat());
            buckets.push(name);
        }
        buckets.sort_unstable();
        Ok(buckets)
    }

    fn entries(&self, bucket: &str, cursor: Option<&str>, max_bytes: usize) -> Result<EntryPage, ReadError> {
        if bucket.len() > MAX_BUCKET_BYTES {
            return Ok(EntryPage::default());
        }
        let prefix = self.head.number.bucket(bucket);
        let after = cursor.map(|cursor| self.head.number.value(bucket, cursor).key);
        let mut page = EntryPage::default();
        let mut bytes = 0;
        for entry in self.view.entries(&prefix, after.as_deref()) {
            let (key, value) = entry?;
            bytes += key.len() + value.len();
            if bytes > max_bytes && !page.entries.is_empty() {
                page.next = page.entries.last().map(|(key, _)| key.clone());
                break;
            }
            let name = String::from_utf8(key[prefix.key.len()..].to_vec());
            let name = name.map_err(|_| damaged("a key is not text"))?;
            page.entries.push((name, Bytes::copy_from_slice(&value)));
        }
        Ok(page)
    }

    fn answers(&self, cursor: Option<u64>, max_bytes: usize) -> Result<AnswerPage, ReadError> {
        let window = &self.head.answers;
        if cursor.is_none() {
            self.check_window()?;
        }
        let mut page = AnswerPage::default();
        let mut bytes = 0;
        for ordinal in cursor.map_or(window.first, |last| last + 1)..window.next {
            let (answer, size) = self.answer(ordinal)?;
            bytes += size;
            if bytes > max_bytes && !page.answers.is_empty() {
                page.next = Some(ordinal - 1);
                break;
            }
            page.answers.push(answer);
        }
        Ok(page)
    }
}

/// The bucket's name in what follows the prefix of all buckets.
fn bucket_of(key: &[u8]) -> Result<String, ReadError> {
    let name = key.split_first().and_then(|(length, rest)| rest.get(..usize::from(*length)));
    let name = name.and_then(|name| std::str::from_utf8(name).ok());
    name.map(str::to_owned).ok_or_else(|| damaged("a key has no bucket"))
}

fn damaged(what: &str) -> ReadError {
    ReadError::Corrupt { what: what.to_owned() }
}
