//! The partition's log. Capability `logging`.
//!
//! ```no_run
//! # fn main() {
//! let airport = "JFK";
//! hvm_guest::log::info!("{airport} has its first flight");
//! # }
//! ```

use crate::bindings::wasi::logging::logging;
pub use crate::bindings::wasi::logging::logging::Level;

#[doc(inline)]
pub use crate::{
    __log_debug as debug, __log_error as error, __log_info as info, __log_trace as trace, __log_warn as warn,
};

/// Writes one message. `context` says who speaks: a module, a part of the app.
pub fn write(level: Level, context: &str, message: &str) {
    logging::log(level, context, message);
}

/// Logs single steps; takes what `format!` takes.
#[macro_export]
#[doc(hidden)]
macro_rules! __log_trace {
    ($($message:tt)*) => {
        $crate::log::write($crate::log::Level::Trace, module_path!(), &format!($($message)*))
    };
}

/// Logs for debugging; takes what `format!` takes.
#[macro_export]
#[doc(hidden)]
macro_rules! __log_debug {
    ($($message:tt)*) => {
        $crate::log::write($crate::log::Level::Debug, module_path!(), &format!($($message)*))
    };
}

/// Logs what is noteworthy and expected; takes what `format!` takes.
#[macro_export]
#[doc(hidden)]
macro_rules! __log_info {
    ($($message:tt)*) => {
        $crate::log::write($crate::log::Level::Info, module_path!(), &format!($($message)*))
    };
}

/// Logs what is unexpected and handled; takes what `format!` takes.
#[macro_export]
#[doc(hidden)]
macro_rules! __log_warn {
    ($($message:tt)*) => {
        $crate::log::write($crate::log::Level::Warn, module_path!(), &format!($($message)*))
    };
}

/// Logs that a unit of work failed; takes what `format!` takes.
#[macro_export]
#[doc(hidden)]
macro_rules! __log_error {
    ($($message:tt)*) => {
        $crate::log::write($crate::log::Level::Error, module_path!(), &format!($($message)*))
    };
}
