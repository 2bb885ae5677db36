//! Faults and greed: traps, endless work, endless memory.

use std::hint::black_box;

use hvm_guest::{Request, Response};
use wasip2::http::types::Fields;

use crate::number;

/// Bytes allocated at a time.
const MIB: usize = 1024 * 1024;
/// Memory is touched at this distance, so that each page is really there.
const PAGE_BYTES: usize = 4096;

pub fn answer(action: &str, request: &Request) -> Option<Response> {
    Some(match action {
        "trap" => {
            let turns = number(request, "spin").unwrap_or(0);
            trap(&request.query_param("kind").unwrap_or_default(), turns)
        }
        "loop" => spin_forever(),
        "spin" => Response::text(spin(number(request, "n").unwrap_or(1_000_000)).to_string()),
        "alloc" => allocate(number(request, "mb")),
        "recurse" => Response::text(recurse(number(request, "depth").unwrap_or(u64::MAX)).to_string()),
        "leak" => leak(number(request, "n")),
        _ => return None,
    })
}

/// Work that no compiler takes away; the result depends on every turn.
fn spin(turns: u64) -> u64 {
    let mut sum = 0_u64;
    for turn in 0..turns {
        sum = black_box(sum.wrapping_mul(31).wrapping_add(turn));
    }
    sum
}

pub fn spin_forever() -> ! {
    let mut turn = 0_u64;
    loop {
        turn = black_box(turn.wrapping_add(1));
    }
}

/// Works for a while (so that there is something on the bill), then traps in one of the ways there are.
pub fn trap(kind: &str, turns: u64) -> ! {
    let sum = black_box(spin(turns));
    match kind {
        "panic" => panic!("the probe was asked to panic"),
        "divide" => {
            let zero = black_box(0_u64);
            // SAFETY: not sound on purpose; without the compiler's own check the instruction itself traps.
            let divisor = unsafe { std::num::NonZeroU64::new_unchecked(zero) };
            let quotient = sum / divisor;
            black_box(quotient);
        }
        "out-of-bounds" => {
            // SAFETY: not sound on purpose; beyond the end of a memory of less than 4 GiB, where the load traps.
            let byte = unsafe { core::ptr::read_volatile(0xffff_fff0_usize as *const u8) };
            black_box(byte);
        }
        _ => {}
    }
    #[cfg(target_arch = "wasm32")]
    core::arch::wasm32::unreachable();
    #[cfg(not(target_arch = "wasm32"))]
    unreachable!("guests run on wasm32 only");
}

/// `mb` megabytes, given back before the answer; without a number, memory without end.
fn allocate(mb: Option<u64>) -> Response {
    let mut held: Vec<Vec<u8>> = Vec::new();
    while mb.is_none_or(|mb| (held.len() as u64) < mb) {
        let mut block = vec![0_u8; MIB];
        for at in (0..MIB).step_by(PAGE_BYTES) {
            block[at] = 1;
        }
        held.push(black_box(block));
    }
    Response::text(format!("{} MiB", held.len()))
}

/// Goes `depth` calls deep. Not a tail call, because the result is needed afterwards.
#[allow(unconditional_recursion, reason = "the depth is the caller's choice")]
#[inline(never)]
fn recurse(depth: u64) -> u64 {
    if black_box(depth) == 0 {
        return 0;
    }
    black_box(recurse(depth - 1)) + 1
}

/// Takes `n` resources from the host and never gives them back; without a number, without end.
fn leak(n: Option<u64>) -> Response {
    let mut leaked = 0_u64;
    while n.is_none_or(|n| leaked < n) {
        std::mem::forget(Fields::new());
        leaked += 1;
    }
    Response::text(leaked.to_string())
}
