//! Compiles the schemas without protoc: `protox` is a compiler in Rust.

use prost::Message as _;

const FILES: [&str; 6] = [
    "waypost/link.proto",
    "waypost/handover.proto",
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
        // They are parts of the answer that they came in until they have been checked, and
        // not each a piece of memory of its own.
        .bytes(".waypost.link.v1.Link")
        .compile_fds(descriptors)?;
    Ok(())
}
