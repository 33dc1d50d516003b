//! Compiles `aether/v1/*.proto`: messages, client and server into one module, and the descriptors that reflection serves.
//! protox is the compiler, so that no `protoc` has to be installed.

use std::error::Error;
use std::path::PathBuf;

use prost::Message;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=aether");
    let descriptors = protox::compile(["aether/v1/aether.proto", "aether/v1/peer.proto"], ["."])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("aether.v1.bin"), descriptors.encode_to_vec())?;
    // It holds a secret: src/lib.rs says how it is shown.
    tonic_prost_build::configure().skip_debug([".aether.v1.CreateTokenReply"]).compile_fds(descriptors)?;
    Ok(())
}
