//! Generates Rust from the .proto files with protox, so that no `protoc` is needed on the machine.

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs};

use prost::Message;

/// `flotilla/v1`: what clients see, also through reflection.
const PUBLIC: &[&str] = &["types", "producer", "consumer", "groups", "topics", "cluster", "nodes", "partitions"];
/// `flotilla/internal/v1`: peer traffic, replicated commands, stored values. Not reflected.
const INTERNAL: &[&str] = &["partition", "controller", "raft", "peer"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=flotilla");
    let public = protox::compile(paths("flotilla/v1", PUBLIC), ["."])?;
    let out_dir = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out_dir.join("descriptors.bin"), public.encode_to_vec())?;
    let generator = || tonic_prost_build::configure().bytes(".").codec_path("crate::codec::ExactCodec");
    generator().compile_fds(public)?;
    let internal = protox::compile(paths("flotilla/internal/v1", INTERNAL), ["."])?;
    generator().compile_fds(internal)?;
    Ok(())
}

fn paths(folder: &str, names: &[&str]) -> Vec<String> {
    names.iter().map(|name| format!("{folder}/{name}.proto")).collect()
}
