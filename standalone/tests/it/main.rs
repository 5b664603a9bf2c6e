//! The all-in-one binary, as one person uses it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod browser;
mod options;
mod process;
mod public_port;
mod serving;
mod visitors;
