//! Why a replica waits, for a program and for a person.

use std::fmt;
use std::sync::Arc;

use hvm_types::{Constraint, ConstraintOperator, HostId};

/// What a replica waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WaitReason {
    /// No host has joined.
    NoHosts,
    /// No host takes it: why, for each class of hosts.
    NoHostFits {
        /// The classes.
        refusals: Arc<[Refusal]>,
    },
    /// Its state lies on a host that does not take it now.
    StateOn {
        /// That host.
        host: HostId,
        /// Why it does not.
        refusal: HostRefusal,
    },
    /// Its host can't run the current generation.
    UpdateRefused {
        /// Its host.
        host: HostId,
        /// Why it can't.
        refusal: HostRefusal,
    },
    /// As many replicas of its group as may change at once do.
    MaxParallel {
        /// How many may.
        limit: u32,
    },
    /// Another replica of its group does not run the generation that it is assigned.
    UpdateFailed {
        /// The number of that replica.
        index: u32,
        /// Its host.
        host: HostId,
        /// Why it does not.
        reason: Arc<str>,
    },
    /// Its host has said nothing since the scheduler started.
    HostSilent {
        /// Its host.
        host: HostId,
    },
    /// Its host is lost, and no other takes it.
    HostLost {
        /// Its host.
        host: HostId,
        /// Why no other takes it.
        refusals: Arc<[Refusal]>,
    },
}

/// The hosts that refuse a replica for the same reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Why. Where it says how much is free, it is the most that any of them has.
    pub why: HostRefusal,
    /// How many hosts.
    pub hosts: u32,
    /// The first of them by name.
    pub example: HostId,
}

/// Why a host does not take a replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostRefusal {
    /// Its lease ended.
    Lost,
    /// A constraint does not hold.
    Excluded {
        /// The constraint.
        constraint: Constraint,
    },
    /// Too little processor is left.
    NoCpu {
        /// MHz needed.
        needs_mhz: u64,
        /// MHz left.
        free_mhz: u64,
    },
    /// Too little memory is left.
    NoMemory {
        /// MB needed.
        needs_mb: u64,
        /// MB left.
        free_mb: u64,
    },
    /// It has as many replicas as a host may have.
    Full,
    /// It still has to delete older state of the same group.
    Purging,
}

impl fmt::Display for HostRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost => f.write_str("lost: its agent does not report"),
            Self::Excluded { constraint } => {
                let operator = match constraint.operator {
                    ConstraintOperator::In => "in",
                    ConstraintOperator::NotIn => "not-in",
                };
                let values = constraint.value.join(", ");
                write!(f, "excluded by the constraint {} {operator} [{values}]", constraint.attribute)
            }
            Self::NoCpu { needs_mhz, free_mhz } => {
                write!(f, "too little cpu: {needs_mhz} MHz needed, {free_mhz} MHz free")
            }
            Self::NoMemory { needs_mb, free_mb } => {
                write!(f, "too little memory: {needs_mb} MB needed, {free_mb} MB free")
            }
            Self::Full => f.write_str("full: it has as many replicas as a host may have"),
            Self::Purging => f.write_str("still deleting older state of this group"),
        }
    }
}

fn list(f: &mut fmt::Formatter<'_>, refusals: &[Refusal]) -> fmt::Result {
    for (i, Refusal { why, hosts, example }) in refusals.iter().enumerate() {
        f.write_str(if i > 0 { "; " } else { "" })?;
        match hosts {
            1 => write!(f, "{example}: {why}")?,
            _ => write!(f, "{hosts} hosts, such as {example}: {why}")?,
        }
    }
    Ok(())
}

impl fmt::Display for WaitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoHosts => f.write_str("no host has joined: start one with `hvm agent`"),
            Self::NoHostFits { refusals } => {
                f.write_str("no host takes it: ")?;
                list(f, refusals)
            }
            Self::StateOn { host, refusal } => {
                write!(f, "its state is on host {host}, which can't run it now: {refusal}")
            }
            Self::UpdateRefused { host, refusal } => {
                write!(f, "host {host} can't run the new generation: {refusal}")
            }
            Self::MaxParallel { limit } => {
                write!(f, "max_parallel: {limit} of its group may change at a time")
            }
            Self::UpdateFailed { index, host, reason } => {
                write!(
                    f,
                    "the update stopped at replica {index} on host {host}: {reason}; deploy a version that runs"
                )
            }
            Self::HostSilent { host } => {
                write!(f, "host {host} has not reported since the scheduler started")
            }
            Self::HostLost { host, refusals } => {
                write!(f, "host {host} is lost, and no other takes it: ")?;
                list(f, refusals)
            }
        }
    }
}
