//! Takes the files of Swagger UI out of the archive that its crate holds, as they are
//! sent: compressed.

use std::env;
use std::fs;
use std::io::{Cursor, Read as _};
use std::path::Path;

use utoipa_swagger_ui_vendored::SWAGGER_UI_VENDORED;
use zip::ZipArchive;

/// All that the page needs of the archive's ten megabytes.
const FILES: [&str; 2] = ["swagger-ui-bundle.js", "swagger-ui.css"];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let out = env::var_os("OUT_DIR").expect("cargo sets it");
    let mut archive = ZipArchive::new(Cursor::new(SWAGGER_UI_VENDORED)).expect("it is an archive");
    for wanted in FILES {
        let path = format!("/dist/{wanted}");
        let index = archive
            .file_names()
            .position(|name| name.is_ok_and(|name| name.ends_with(&path)))
            .expect("Swagger UI has this file");
        let file = gzip(&mut archive, index);
        fs::write(Path::new(&out).join(format!("{wanted}.gz")), file)
            .expect("the output folder can be written");
    }
}

/// A file of the archive in gzip's frame (RFC 1952): both hold the same compressed
/// bytes, so that nothing is unpacked here, and no compressor is needed there.
fn gzip(archive: &mut ZipArchive<Cursor<&[u8]>>, index: usize) -> Vec<u8> {
    let mut file = archive.by_index_raw(index).expect("it was found");
    let mut framed = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    file.read_to_end(&mut framed).expect("it is in memory");
    framed.extend(file.crc32().to_le_bytes());
    let size = u32::try_from(file.size()).expect("a script is no movie");
    framed.extend(size.to_le_bytes());
    framed
}
