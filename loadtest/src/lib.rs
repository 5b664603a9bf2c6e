//! An open-loop load generator for URL shorteners.
//!
//! The order of reading: [`options`] say what to do, [`run`] does it,
//! [`worker`] sends, [`record`] keeps what was seen and [`report`] tells it.
//! It speaks HTTP and knows nothing of what is behind it.

pub mod client;
pub mod links;
pub mod mix;
pub mod objective;
pub mod options;
pub mod rates;
pub mod record;
pub mod report;
pub mod run;
pub mod schedule;
pub mod seed;
pub mod span;
pub mod target;
pub mod timer;
pub mod traffic;
pub mod worker;
pub mod zipf;

pub use options::{Options, Plan};
pub use run::{Error, run};

/// An error with what is behind it, in one line.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let sources = std::iter::successors(error.source(), |error| error.source());
    sources.fold(error.to_string(), |text, source| {
        format!("{text}: {source}")
    })
}
