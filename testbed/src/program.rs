//! Where the programs that we start are found.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Where Debian and the others put the server programs of Postgres, which are
/// not in the search path.
const POSTGRES_FOLDERS: [&str; 3] = ["/usr/lib/postgresql", "/usr/local/pgsql", "/opt/postgresql"];

/// Where Debian puts servers.
const SYSTEM_FOLDER: &str = "/usr/sbin";

/// A program of the search path.
pub(crate) fn in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|candidate| candidate.is_file())
}

/// A program that may be meant for administrators: their folder is not in
/// everybody's search path.
pub(crate) fn of_system(name: &str) -> Option<PathBuf> {
    in_path(name).or_else(|| {
        let candidate = Path::new(SYSTEM_FOLDER).join(name);
        candidate.is_file().then_some(candidate)
    })
}

/// What we run of Postgres; one package has them all.
const POSTGRES_PROGRAMS: [&str; 4] = ["initdb", "postgres", "psql", "pg_basebackup"];

/// The folder with Postgres's programs: of the newest version.
pub(crate) fn postgres_folder() -> Result<PathBuf> {
    let mut versions: Vec<PathBuf> = POSTGRES_FOLDERS
        .iter()
        .filter_map(|folder| std::fs::read_dir(folder).ok())
        .flatten()
        .flatten()
        .map(|version| version.path().join("bin"))
        .collect();
    versions.sort_by_key(|folder| version_of(folder));
    versions
        .into_iter()
        .rev()
        .chain(in_path("initdb").and_then(|initdb| initdb.parent().map(Path::to_owned)))
        .find(|folder| {
            POSTGRES_PROGRAMS
                .iter()
                .all(|name| folder.join(name).is_file())
        })
        .ok_or_else(|| Error::Missing {
            what: POSTGRES_PROGRAMS.join(", "),
            remedy: "install the package postgresql".to_owned(),
        })
}

fn version_of(folder: &Path) -> u32 {
    folder
        .parent()
        .and_then(Path::file_name)
        .and_then(|name| name.to_str())
        .and_then(|name| name.parse().ok())
        .unwrap_or_default()
}
