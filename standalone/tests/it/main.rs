//! The all-in-one binary, as one person uses it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod backup;
mod browser;
mod contract;
mod cors;
mod docs;
mod hostile;
mod keys;
mod limits;
mod links;
mod lists;
mod one_person;
mod options;
mod process;
mod protection;
mod public_port;
mod repeats;
mod serving;
mod statistics;
mod tokens;
mod traces;
mod transfer;
mod visitors;
