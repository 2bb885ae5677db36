//! The W3C trace context of a request: <https://www.w3.org/TR/trace-context/>.
//!
//! It is passed on to the guest and to what the guest calls. Where this host records a span of its own, that span
//! becomes the parent; else the header goes on as it came, as the standard asks of whoever takes no part.

use std::hash::{BuildHasher as _, RandomState};

use http::{HeaderMap, HeaderName, HeaderValue};

/// The header that names trace and parent.
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// The header in which tracing systems keep what is theirs.
pub(crate) const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Length of version 00: two digits, trace, parent, two digits of flags, with dashes between.
const LENGTH: usize = 55;
const TRACE_ID: std::ops::Range<usize> = 3..35;
const PARENT_ID: std::ops::Range<usize> = 36..52;

/// Trace and parent of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TraceContext {
    parent: HeaderValue,
    state: Option<HeaderValue>,
}

impl TraceContext {
    /// Takes it from a request's headers. What is malformed is removed, so that nobody further on sees it.
    pub(crate) fn take_in(headers: &mut HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(TRACEPARENT).iter();
        let first = values.next()?;
        if values.next().is_none() && is_valid(first.as_bytes()) {
            let parent = first.clone();
            // Several lines of it are one list; only a single one is passed on from here, the rest by the guest.
            return Some(Self { parent, state: headers.get(TRACESTATE).cloned() });
        }
        headers.remove(TRACEPARENT);
        headers.remove(TRACESTATE);
        None
    }

    /// The context for what happens within a new span. Begins a trace where there is none.
    pub(crate) fn within(outer: Option<&Self>) -> Self {
        let span = random();
        let parent = match outer {
            Some(outer) => {
                let text = outer.text();
                format!("00-{}-{span:016x}-{}", &text[TRACE_ID], &text[PARENT_ID.end + 1..LENGTH])
            }
            // Flags 01: recorded here.
            None => format!("00-{:016x}{:016x}-{span:016x}-01", random(), random()),
        };
        let parent = HeaderValue::from_str(&parent).expect("hexadecimal digits and dashes");
        Self { parent, state: outer.and_then(|outer| outer.state.clone()) }
    }

    /// Writes it into the headers of a request that does not say its own.
    pub(crate) fn pass_on(&self, headers: &mut HeaderMap) {
        if !headers.contains_key(TRACEPARENT) {
            headers.insert(TRACEPARENT, self.parent.clone());
            if let Some(state) = &self.state {
                headers.insert(TRACESTATE, state.clone());
            }
        }
    }

    /// Replaces the parent that a request's headers name.
    pub(crate) fn put(&self, headers: &mut HeaderMap) {
        headers.insert(TRACEPARENT, self.parent.clone());
    }

    fn text(&self) -> &str {
        self.parent.to_str().expect("it was checked to be ASCII")
    }

    /// The trace, 32 hexadecimal digits.
    pub(crate) fn trace_id(&self) -> &str {
        &self.text()[TRACE_ID]
    }

    /// The parent, 16 hexadecimal digits.
    pub(crate) fn parent_id(&self) -> &str {
        &self.text()[PARENT_ID]
    }
}

/// Never zero, which would mean that there is none. Ids are no secrets: the hash of a random key will do.
fn random() -> u64 {
    RandomState::new().hash_one(()).max(1)
}

/// Version 00 in full, or a later version that begins in the same form.
fn is_valid(value: &[u8]) -> bool {
    let hex =
        |range: std::ops::Range<usize>| value[range].iter().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'));
    let some = |range: std::ops::Range<usize>| value[range].iter().any(|c| *c != b'0');
    value.len() >= LENGTH
        && value.is_ascii()
        && hex(0..2)
        && &value[..2] != b"ff"
        && (value.len() == LENGTH || (&value[..2] != b"00" && value[LENGTH] == b'-'))
        && [2, 35, 52].iter().all(|dash| value[*dash] == b'-')
        && hex(TRACE_ID)
        && some(TRACE_ID)
        && hex(PARENT_ID)
        && some(PARENT_ID)
        && hex(53..LENGTH)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn headers(values: &[&'static str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(TRACEPARENT, HeaderValue::from_static(value));
        }
        headers.insert(TRACESTATE, HeaderValue::from_static("vendor=1"));
        headers
    }

    #[test]
    fn a_valid_context_is_taken_and_passed_on_as_it_came() {
        let mut incoming = headers(&[GOOD]);
        let context = TraceContext::take_in(&mut incoming).expect("valid");
        assert_eq!(context.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(context.parent_id(), "00f067aa0ba902b7");
        assert_eq!(incoming.len(), 2);
        let mut outgoing = HeaderMap::new();
        context.pass_on(&mut outgoing);
        assert_eq!(
            (&outgoing[TRACEPARENT], &outgoing[TRACESTATE]),
            (&incoming[TRACEPARENT], &incoming[TRACESTATE])
        );
        let own = HeaderValue::from_static("the guest's own");
        outgoing.insert(TRACEPARENT, own.clone());
        context.pass_on(&mut outgoing);
        assert_eq!(outgoing[TRACEPARENT], own);
    }

    #[test]
    fn what_is_malformed_goes_no_further() {
        for bad in [
            &["00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7"][..],
            &["00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more"],
            &["00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01"],
            &["00-00000000000000000000000000000000-00f067aa0ba902b7-01"],
            &["00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01"],
            &["ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"],
            &[GOOD, GOOD],
            &[""],
        ] {
            let mut headers = headers(bad);
            assert_eq!(TraceContext::take_in(&mut headers), None, "{bad:?}");
            assert!(headers.is_empty(), "{bad:?} is still there");
        }
        let later = "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more";
        assert!(TraceContext::take_in(&mut headers(&[later])).is_some(), "a later version in the same form");
    }

    #[test]
    fn a_span_of_ours_becomes_the_parent_in_the_same_trace() {
        let outer = TraceContext::take_in(&mut headers(&[GOOD])).expect("valid");
        let inner = TraceContext::within(Some(&outer));
        assert_eq!(inner.trace_id(), outer.trace_id());
        assert_ne!(inner.parent_id(), outer.parent_id());
        assert_eq!(inner.state, outer.state);
        for context in [inner, TraceContext::within(None)] {
            assert!(is_valid(context.parent.as_bytes()), "{context:?}");
        }
        assert_ne!(TraceContext::within(None).trace_id(), TraceContext::within(None).trace_id());
    }
}
