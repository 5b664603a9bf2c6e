//! The fuzz targets: each takes bytes, and panics if what reads them breaks a promise.
//!
//! `cargo fuzz run --features libfuzzer NAME` (a nightly toolchain, or
//! `RUSTC_BOOTSTRAP=1`) looks for new ones; the tests of this package replay those that
//! are kept in `corpus/NAME`, and variations of them, on any toolchain.

mod cache_value;
mod clicks;
mod slug;
mod token;
mod url;

pub use cache_value::cache_value;
pub use clicks::clicks;
pub use slug::slug;
pub use token::token;
pub use url::url;
