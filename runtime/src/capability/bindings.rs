//! The host side of `guest-sdk/wit`, generated.
#![allow(missing_docs, unreachable_pub, reason = "generated code")]
#![allow(clippy::allow_attributes_without_reason, reason = "generated code")]

wasmtime::component::bindgen!({
    path: "../guest-sdk/wit",
    world: "hvm:host/capabilities",
    imports: {
        "wasi:keyvalue/store.[method]bucket.list-keys": async | trappable,
        "wasi:keyvalue/batch.get-many": async | trappable,
        "wasi:logging/logging.log": async | trappable,
        default: trappable,
    },
    with: {
        "wasi:keyvalue/store.bucket": crate::capability::Bucket,
    },
    trappable_error_type: {
        "wasi:keyvalue/store.error" => crate::capability::keyvalue::KeyvalueError,
    },
    require_store_data_send: true,
});
