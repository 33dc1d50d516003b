//! Compiles `aether/v1/*.proto`: messages, client and server into one module, and the descriptors that reflection serves.
//! protox is the compiler, so that no `protoc` has to be installed.

use std::error::Error;
use std::path::PathBuf;

use prost::Message;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=aether");
    let descriptors = protox::compile(["aether/v1/aether.proto"], ["."])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("aether.v1.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
