//! Hostile input: a function for each family of decoders that takes bytes from anywhere and must neither panic nor break
//! what it asserts. `docs/testing.md` says how they are run: by cargo-fuzz for hours, by `cargo test` in short.

pub mod fuse;
pub mod grpc;
pub mod log;
pub mod objects;
pub mod pack;
pub mod peer;
pub mod remote;
pub mod seeds;
pub mod text;
pub mod world;

/// Takes bytes from anywhere.
pub type Target = fn(&[u8]);

/// All targets by name.
pub const TARGETS: [(&str, Target); 8] = [
    ("objects", objects::run),
    ("pack", pack::run),
    ("remote", remote::run),
    ("peer", peer::run),
    ("log", log::run),
    ("fuse", fuse::run),
    ("grpc", grpc::run),
    ("text", text::run),
];
