//! `cargo xtask k8s`: the manifests that follow from `deploy/topology.yaml`, and what must
//! hold of all of them.

mod certificates;
mod checks;
mod kafka;
mod objects;
mod overlays;
mod policies;
mod postgres;
mod render;
#[cfg(test)]
mod runbooks;
mod shard_maps;
mod spool;
#[cfg(test)]
mod tests;
mod topology;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::{Error, steps};
use checks::{Options as ProgramOptions, Place};
use objects::Objects;
use topology::Topology;

const TOPOLOGY: &str = "deploy/topology.yaml";

/// Has a table of each program's options.
const CONFIGURATION: &str = "docs/configuration.md";

/// What a file begins with that is made here.
const MADE: &str = "# Made by `cargo xtask k8s` out of deploy/topology.yaml: change it there.\n";

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Write nothing; fail if a manifest is not up to date, or is wrong
    #[arg(long)]
    check: bool,

    #[command(subcommand)]
    task: Option<Task>,
}

#[derive(Debug, clap::Subcommand)]
enum Task {
    /// Print each region and its context of kubectl
    Regions,
    /// Print all objects of a region
    Render {
        /// As the topology calls it
        region: String,
    },
}

pub(crate) fn run(options: &Options) -> Result<(), Error> {
    match &options.task {
        Some(Task::Render { region }) => {
            let (text, _) = render::render(&overlay(region)).map_err(Error::Step)?;
            print!("{text}");
            Ok(())
        }
        Some(Task::Regions) => {
            for (_, region) in topology()?.regions() {
                println!("{} {}", region.name, region.context);
            }
            Ok(())
        }
        None if options.check => check(),
        None => write(),
    }
}

fn overlay(region: &str) -> std::path::PathBuf {
    let folder = steps::root().join(overlays::FOLDER);
    folder.join("overlays").join(region)
}

fn write() -> Result<(), Error> {
    let root = steps::root();
    let files = made(&root)?;
    let folder = root.join(overlays::FOLDER);
    let failed = |path: &Path, error: std::io::Error| {
        Error::Step(format!("cannot write {}: {error}", path.display()))
    };
    for (path, text) in &files {
        let path = folder.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(|error| failed(parent, error))?;
        }
        fs::write(&path, text).map_err(|error| failed(&path, error))?;
    }
    for stray in strays(&folder, &files) {
        let path = folder.join(stray);
        fs::remove_file(&path).map_err(|error| failed(&path, error))?;
    }
    Ok(())
}

/// Fails if a manifest does not say what the topology says, or what is rendered is wrong.
pub(crate) fn check() -> Result<(), Error> {
    is_up_to_date()?;
    let (topology, options) = (topology()?, program_options()?);
    let mut wrong = String::new();
    for (deployment, region) in topology.regions() {
        let mut judge = |name: &str, objects: &Objects| -> Result<(), Error> {
            let place = Place::new(&topology, (deployment, region), objects, &options);
            let mut broken = place.broken();
            broken.extend(render::against_schemas(objects).map_err(Error::Step)?);
            for broken in broken {
                wrong += &format!("\n  {name}: {broken}");
            }
            Ok(())
        };
        let folder = overlay(&region.name);
        judge(
            &region.name,
            &render::render(&folder).map_err(Error::Step)?.1,
        )?;
        if folder.join("app-with-volumes").exists() {
            let name = format!("{} with volumes", region.name);
            judge(&name, &with_volumes(&folder)?)?;
        }
    }
    if wrong.is_empty() {
        return Ok(());
    }
    Err(Error::Step(format!("these manifests are wrong:{wrong}")))
}

/// All stages, with that of the programs in its other form.
fn with_volumes(folder: &Path) -> Result<Objects, Error> {
    let stages = [
        "foundation",
        "data",
        "migrate",
        "app-with-volumes",
        "edge",
        "observe",
    ];
    let mut objects = Objects(Vec::new());
    for stage in stages {
        let (_, stage) = render::render(&folder.join(stage)).map_err(Error::Step)?;
        objects.0.extend(stage.0);
    }
    Ok(objects)
}

fn is_up_to_date() -> Result<(), Error> {
    let root = steps::root();
    let files = made(&root)?;
    let folder = root.join(overlays::FOLDER);
    let old = files.iter().filter(|(path, text)| {
        let there = fs::read_to_string(folder.join(path));
        there.ok().as_ref() != Some(text)
    });
    let old = old.map(|(path, _)| path.clone());
    let old: Vec<String> = old.chain(strays(&folder, &files)).collect();
    if old.is_empty() {
        return Ok(());
    }
    Err(Error::Step(format!(
        "not what {TOPOLOGY} says, run `cargo xtask k8s`: {}",
        old.join(", ")
    )))
}

fn made(root: &Path) -> Result<BTreeMap<String, String>, Error> {
    overlays::files(&topology()?, root).map_err(Error::Step)
}

fn topology() -> Result<Topology, Error> {
    let text = read(TOPOLOGY)?;
    Topology::parse(&text).map_err(|error| Error::Step(format!("{TOPOLOGY}: {error}")))
}

fn program_options() -> Result<ProgramOptions, Error> {
    Ok(ProgramOptions::of(&read(CONFIGURATION)?))
}

/// A file of the clone.
fn read(path: &str) -> Result<String, Error> {
    fs::read_to_string(steps::root().join(path))
        .map_err(|error| Error::Step(format!("cannot read {path}: {error}")))
}

/// Files in the folders of what is made that nothing makes any more.
fn strays(folder: &Path, files: &BTreeMap<String, String>) -> Vec<String> {
    let mut found = Vec::new();
    let mut open: Vec<_> = overlays::MADE_FOLDERS.map(|name| folder.join(name)).into();
    while let Some(next) = open.pop() {
        let Ok(entries) = fs::read_dir(&next) else {
            continue;
        };
        for entry in entries.flatten() {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
            } else if let Ok(path) = path.strip_prefix(folder)
                && let Some(path) = path.to_str()
                && !files.contains_key(path)
            {
                found.push(path.to_owned());
            }
        }
    }
    found.sort();
    found
}

/// The text with each `@name@` replaced by its value.
fn fill(text: &str, values: &[(&str, &str)]) -> String {
    values.iter().fold(text.to_owned(), |text, (name, value)| {
        text.replace(&format!("@{name}@"), value)
    })
}
