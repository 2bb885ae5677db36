//! The generated code, with the lints off that it does not follow.

/// Package `hvm.v1`. Its documentation stands in the `.proto` files.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]
pub mod v1 {
    tonic::include_proto!("hvm.v1");
}
