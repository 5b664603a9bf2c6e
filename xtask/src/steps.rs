//! Commands run one after the other, and the time each takes.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::Error;

/// Prints, when dropped, what the time went into.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    taken: Vec<(String, Duration)>,
}

impl Steps {
    /// Runs a command in the root of the clone; its failure ends the task.
    pub(crate) fn run(&mut self, command: &mut Command) -> Result<(), Error> {
        let words = [command.get_program()]
            .into_iter()
            .chain(command.get_args());
        let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
        let name = words.join(" ").replacen(&cargo_path(), "cargo", 1);
        eprintln!("xtask: {name}");
        let started = Instant::now();
        let status = command.current_dir(root()).status();
        self.taken.push((name.clone(), started.elapsed()));
        match status {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(Error::Step(format!("`{name}` failed: {status}"))),
            Err(error) => Err(Error::Step(format!("`{name}` did not start: {error}"))),
        }
    }

    pub(crate) fn cargo(&mut self, arguments: &[&str]) -> Result<(), Error> {
        self.run(cargo().args(arguments))
    }
}

impl Drop for Steps {
    fn drop(&mut self) {
        if self.taken.len() < 2 {
            return;
        }
        eprintln!("xtask: the time went into");
        for (name, time) in &self.taken {
            eprintln!("{:>8.1} s  {name}", time.as_secs_f64());
        }
    }
}

/// The cargo that runs us.
pub(crate) fn cargo() -> Command {
    Command::new(cargo_path())
}

fn cargo_path() -> String {
    std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned())
}

/// Of the clone. Asked at run time: worktrees may share what is built.
pub(crate) fn root() -> PathBuf {
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR");
    let package = manifest.map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    package.parent().map_or(package.clone(), PathBuf::from)
}

/// Where cargo puts what it builds.
pub(crate) fn target_folder() -> Result<PathBuf, Error> {
    let failed = |reason: String| Error::Step(format!("`cargo metadata` failed: {reason}"));
    let output = cargo()
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .current_dir(root())
        .output()
        .map_err(|error| failed(error.to_string()))?;
    let metadata: serde_json::Value =
        serde_json::from_slice(&output.stdout).map_err(|error| failed(error.to_string()))?;
    match metadata["target_directory"].as_str() {
        Some(folder) => Ok(PathBuf::from(folder)),
        None => Err(failed("it names no target folder".to_owned())),
    }
}
