//! Random keys and passwords.

use std::fmt::Write as _;

use crate::error::{Doing as _, Result};

/// So many random bytes in hex digits.
pub(crate) fn random_hex(bytes: usize) -> Result<String> {
    let mut random = vec![0; bytes];
    getrandom::fill(&mut random)
        .map_err(|error| std::io::Error::other(error.to_string()))
        .doing(|| "draw random bytes".to_owned())?;
    Ok(random.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    }))
}
