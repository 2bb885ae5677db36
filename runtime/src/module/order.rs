//! What the parent tells the process that compiles for it: its limits, as one argument of its command line.

use std::str::FromStr;

use hvm_types::Metering;

/// The limits of a compiling process. Printed and read as `name=number` pairs with commas between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Order {
    /// Memory to write to, in bytes.
    pub(super) memory_bytes: u64,
    /// Processor time in seconds.
    pub(super) cpu_seconds: u64,
    /// Longest code in bytes.
    pub(super) code_bytes: u64,
    /// Threads that compile.
    pub(super) threads: u64,
    /// The process that waits for it.
    pub(super) parent: u64,
    /// 1 where the code counts fuel, else 0.
    pub(super) fuel: u64,
}

const NAMES: [&str; 6] = ["memory", "cpu", "code", "threads", "fuel", "parent"];

impl Order {
    /// What the code is compiled for.
    pub(super) const fn metering(&self) -> Metering {
        if self.fuel == 0 { Metering::Time } else { Metering::Deterministic }
    }
}

impl std::fmt::Display for Order {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let values =
            [self.memory_bytes, self.cpu_seconds, self.code_bytes, self.threads, self.fuel, self.parent];
        for (place, (name, value)) in NAMES.iter().zip(values).enumerate() {
            write!(f, "{}{name}={value}", if place == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

impl FromStr for Order {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut pairs = text.split(',');
        let mut next = |name: &str| {
            let value =
                pairs.next().and_then(|pair| pair.strip_prefix(name)?.strip_prefix('=')?.parse().ok());
            value.ok_or_else(|| format!("`{text}` does not say `{name}`: this is a command of the HVM's own"))
        };
        let [memory, cpu, code, threads, fuel, parent] = NAMES;
        Ok(Self {
            memory_bytes: next(memory)?,
            cpu_seconds: next(cpu)?,
            code_bytes: next(code)?,
            threads: next(threads)?,
            fuel: next(fuel)?,
            parent: next(parent)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_read_as_the_same_and_nothing_else_is_read() {
        let order =
            Order { memory_bytes: 1, cpu_seconds: 2, code_bytes: 3, threads: 4, parent: u64::MAX, fuel: 1 };
        assert_eq!(order.to_string().parse(), Ok(order));
        for bad in ["", "memory=1", "memory=1,cpu=2,code=3,threads=4,fuel=-1,parent=5", "--help"] {
            assert!(bad.parse::<Order>().is_err(), "{bad} was taken");
        }
    }
}
