//! The gRPC interface of AetherFS: messages, client and server, generated from `aether/v1/*.proto`. The comments there
//! are normative; this crate adds nothing to them but what both sides need: bounds, and the text of a profile.

#![forbid(unsafe_code)]

pub mod profile;

/// Package `aether.v1`.
#[allow(clippy::all, rustdoc::all, reason = "generated")]
pub mod v1 {
    tonic::include_proto!("aether.v1");
}

impl std::fmt::Debug for v1::CreateTokenReply {
    /// Without the token.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CreateTokenReply").field("info", &self.info).finish_non_exhaustive()
    }
}

/// The encoded `FileDescriptorSet` of the package, for server reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/aether.v1.bin"));

/// Contents larger than this are named in a diff, not attached.
pub const DIFF_CONTENT_BYTES_MAX: u64 = 1 << 20;
/// The most file bytes in one `ReadFileFrame`.
pub const READ_FRAME_BYTES_MAX: usize = 256 << 10;
/// The most forks that one request makes.
pub const FORK_COUNT_MAX: u32 = 1000;
/// The most sessions that one request discards.
pub const DISCARD_COUNT_MAX: usize = 10_000;
/// The longest ID, prefix of one, or label. It is the label's: no ID is as long.
pub const ID_BYTES_MAX: usize = 128;
/// The longest path inside a session.
pub const PATH_BYTES_MAX: usize = 4096;
/// The most entries of a profile that one fetch takes.
pub const FETCH_ENTRIES_MAX: usize = 4096;
/// The most objects that one host asks another one for at a time.
pub const READ_OBJECTS_MAX: usize = 256;
/// The most objects that it is told of which stand behind those.
pub const FOLLOWING_MAX: usize = 512;
/// The longest URI of a session.
pub const URI_BYTES_MAX: usize = 1024;
