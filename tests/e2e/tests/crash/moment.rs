//! When the server is killed, as the seed says, and what it was seen to be doing then.

use std::fs;
use std::path::Path;

use crate::numbers::Numbers;

/// The point at which a life of the server ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    /// After this part of the time that starting usually takes, in percent.
    Start(u32),
    /// The same, counted from when it has the state's directory.
    Recovery(u32),
    /// After so many answers to what is asked first.
    Opening(usize),
    /// After so many acknowledged transfers and so many further looks at the clients, in the middle of the next ones.
    Load(usize, usize),
    /// After so many acknowledged transfers, when nothing is under way.
    Idle(usize),
}

impl Moment {
    pub(crate) fn draw(numbers: &mut Numbers) -> Self {
        let percent =
            |numbers: &mut Numbers, most| u32::try_from(numbers.below(most)).expect("a small number");
        match numbers.below(100) {
            0..20 => Self::Start(percent(numbers, 130)),
            20..38 => Self::Recovery(percent(numbers, 100)),
            38..46 => Self::Opening(numbers.below(20)),
            46..92 => Self::Load(numbers.below(120), numbers.below(60)),
            _ => Self::Idle(numbers.below(60)),
        }
    }
}

/// What the server was doing when it was killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// It did not have the state's directory yet.
    Starting,
    /// It had the directory and did not serve.
    Recovering,
    /// Nothing was asked.
    Idle,
    /// Only queries were under way.
    Reading,
    /// Commands were under way.
    Writing,
    /// Commands were under way, and a thread was in a sync of a file.
    Syncing,
}

impl Phase {
    pub(crate) fn of_starting(pid: u32, state: &Path) -> Self {
        if has_the_state(pid, state) { Self::Recovering } else { Self::Starting }
    }

    pub(crate) fn of_serving(pid: u32, commands: usize, queries: usize) -> Self {
        match (commands, queries) {
            (0, 0) => Self::Idle,
            (0, _) => Self::Reading,
            _ if is_in_a_sync(pid) => Self::Syncing,
            _ => Self::Writing,
        }
    }
}

/// The engine writes its process into the file that it locks.
pub(crate) fn has_the_state(pid: u32, state: &Path) -> bool {
    fs::read_to_string(state.join("LOCK")).is_ok_and(|text| text.trim() == pid.to_string())
}

/// Whether one of its threads is in fsync or fdatasync right now, by the numbers that the kernel shows.
fn is_in_a_sync(pid: u32) -> bool {
    let syncs: [&str; 2] = if cfg!(target_arch = "aarch64") { ["82", "83"] } else { ["74", "75"] };
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    threads.flatten().any(|thread| {
        let call = fs::read_to_string(thread.path().join("syscall")).unwrap_or_default();
        call.split(' ').next().is_some_and(|number| syncs.contains(&number))
    })
}
