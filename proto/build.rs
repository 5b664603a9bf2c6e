//! Compiles the schemas without protoc: `protox` is a compiler in Rust.

use prost::Message as _;

const FILES: [&str; 5] = [
    "waypost/link.proto",
    "waypost/keygen.proto",
    "waypost/click.proto",
    "waypost/analytics.proto",
    "waypost/cache.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        // A URL goes from the wire into an HTTP header without being copied.
        .bytes(".waypost.link.v1.Link.long_url")
        .compile_fds(descriptors)?;
    Ok(())
}
