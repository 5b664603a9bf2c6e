//! What we are compared with: programs that do less, and have done it for long.

pub(crate) mod nginx;
pub(crate) mod pgbench;
pub(crate) mod redis_benchmark;

use std::process::{Command, Stdio};

use crate::Error;

/// Runs a program to its end, which its arguments bound; answers what it printed.
fn output(command: &mut Command) -> Result<String, Error> {
    let name = command.get_program().to_string_lossy().into_owned();
    let failed = |reason: String| Error::Step(format!("{name} failed: {reason}"));
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| failed(error.to_string()))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    Err(failed(format!(
        "{}\n{text}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    )))
}
