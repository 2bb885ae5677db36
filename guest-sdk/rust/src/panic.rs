//! Where a panic's text goes: to standard error, which the host keeps in the partition's log.
//!
//! On targets with WASI underneath std does this itself; on `wasm32-unknown-unknown` the text would be lost.

#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
pub(crate) fn report_to_stderr() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        std::panic::set_hook(Box::new(|info| {
            let _stderr_is_closed =
                crate::stream::write_all(&wasip2::cli::stderr::get_stderr(), format!("{info}\n").as_bytes());
        }));
    });
}

#[cfg(not(all(target_arch = "wasm32", target_os = "unknown")))]
pub(crate) fn report_to_stderr() {}
