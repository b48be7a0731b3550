//! Generates Rust from the .proto files with protox, so that no `protoc` is needed on the machine.

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs};

const PUBLIC: &[&str] = &["types", "producer", "consumer", "groups", "topics", "cluster"];
const INTERNAL: &[&str] = &[];

fn main() -> Result<(), Box<dyn Error>> {
    let files: Vec<String> = (PUBLIC.iter().map(|name| format!("flotilla/v1/{name}.proto")))
        .chain(INTERNAL.iter().map(|name| format!("flotilla/internal/v1/{name}.proto")))
        .collect();
    println!("cargo:rerun-if-changed=flotilla");
    let descriptors = protox::compile(&files, ["."])?;
    let out_dir = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out_dir.join("descriptors.bin"), prost_encode(&descriptors))?;
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}

fn prost_encode(descriptors: &impl prost::Message) -> Vec<u8> {
    descriptors.encode_to_vec()
}
