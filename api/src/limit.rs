//! Sizes that both ends of a connection keep to.

/// Longest message either end takes: a host document of 65,536 partitions and the routing table beside it
/// stay below. Set it on clients and servers, for decoding and for encoding.
pub const MESSAGE_MAX_BYTES: usize = 64 << 20;

/// Longest piece of a blob in one message of a stream.
pub const CHUNK_MAX_BYTES: usize = 256 << 10;

/// Longest text of a failure. It travels in an HTTP/2 header, escaped to up to three times its length, and
/// clients refuse heads above 16 KiB.
pub const FAILURE_MAX_BYTES: usize = 4 << 10;

/// Longest deployment file.
pub const DEPLOYMENT_FILE_MAX_BYTES: usize = 1 << 20;
