//! `cargo xtask docs`: the tables of options, of the API's errors and of metrics, as the
//! programs print them.

mod metrics;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::Error;
use crate::steps::{self, Steps};

const PAGES: [&str; 3] = ["README.md", "docs/configuration.md", "docs/errors.md"];

/// What stands before the name of a program, and the flag that makes it print the table.
const TABLES: [(&str, &str); 2] = [
    ("<!-- options of ", "--options-as-markdown"),
    ("<!-- errors of ", "--errors-as-markdown"),
];
const END: &str = "<!-- end -->";

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Write nothing; fail if a page is not up to date
    #[arg(long)]
    check: bool,
}

pub(crate) fn run(options: &Options) -> Result<(), Error> {
    let mut steps = Steps::default();
    steps.cargo(&["build", "--workspace", "--bins"])?;
    if options.check { check() } else { write() }
}

/// Fails if a page does not say what the programs say.
pub(crate) fn check() -> Result<(), Error> {
    for (path, text, expected) in pages()? {
        if text != expected {
            let name = path.display();
            return Err(Error::Step(format!(
                "{name} is not up to date: run `cargo xtask docs`"
            )));
        }
    }
    Ok(())
}

fn write() -> Result<(), Error> {
    for (path, _, expected) in pages()? {
        fs::write(&path, expected)
            .map_err(|error| Error::Step(format!("cannot write {}: {error}", path.display())))?;
    }
    Ok(())
}

/// Each page as it is and as it is to be.
fn pages() -> Result<Vec<(PathBuf, String, String)>, Error> {
    let mut pages = Vec::new();
    for page in PAGES {
        let (path, text) = read(page)?;
        let expected = filled(&text)?;
        pages.push((path, text, expected));
    }
    let (path, text) = read(metrics::PAGE)?;
    pages.push((path, text, metrics::page(table)?));
    Ok(pages)
}

fn read(page: &str) -> Result<(PathBuf, String), Error> {
    let path = steps::root().join(page);
    let text = fs::read_to_string(&path)
        .map_err(|error| Error::Step(format!("cannot read {}: {error}", path.display())))?;
    Ok((path, text))
}

/// The page with each table replaced by what its program prints.
fn filled(page: &str) -> Result<String, Error> {
    let mut text = page.to_owned();
    for (begin, flag) in TABLES {
        text = filled_with(&text, begin, flag)?;
    }
    Ok(text)
}

fn filled_with(page: &str, begin: &str, flag: &str) -> Result<String, Error> {
    let mut text = String::new();
    let mut rest = page;
    while let Some(at) = rest.find(begin) {
        let malformed = || Error::Step(format!("after `{begin}` a name, `-->` and `{END}` follow"));
        let (before, tail) = rest.split_at(at);
        let (program, tail) = tail[begin.len()..]
            .split_once(" -->")
            .ok_or_else(malformed)?;
        let (_, tail) = tail.split_once(END).ok_or_else(malformed)?;
        let table = table(program, flag)?;
        text += &format!("{before}{begin}{program} -->\n{table}{END}");
        rest = tail;
    }
    Ok(text + rest)
}

fn table(program: &str, flag: &str) -> Result<String, Error> {
    let failed = |problem: String| Error::Step(format!("{program}: {problem}"));
    let path = steps::target_folder()?.join("debug").join(program);
    let output = Command::new(&path)
        .arg(flag)
        // What is set here must not show as a default there.
        .env_clear()
        .output()
        .map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        return Err(failed(output.status.to_string()));
    }
    String::from_utf8(output.stdout).map_err(|error| failed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_around_the_tables_stays() {
        let page = "before\nno table here\nafter\n";
        assert_eq!(filled(page).ok().as_deref(), Some(page));
    }
}
