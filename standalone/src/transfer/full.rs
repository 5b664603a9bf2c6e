//! `waypost export --full` and `waypost import --full`: all that an instance has, out of
//! its data folder into a file, and out of the file into a cluster.

mod cluster;
mod export;
mod file;
mod import;
mod readback;
mod routes;

use std::fs::File;
use std::io::BufWriter;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use tonic::Status;
use waypost_proto::auth::ServiceToken;
use waypost_runtime::config::Invalid;
use waypost_runtime::tls::TlsOptions;
use waypost_runtime::{Error, secrets};

use self::cluster::{Caller, Cluster};
use self::file::{Damaged, FullFile};

/// Where the cluster is that `import --full` fills.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "With --full")]
pub(super) struct Target {
    /// Folder with the cluster's secrets, of which service-token is read
    #[arg(long, env = "WAYPOST_SECRETS_DIR", value_name = "FOLDER")]
    secrets_dir: Option<PathBuf>,

    /// The cluster's shard map
    #[arg(long, env = "WAYPOST_SHARD_MAP", value_name = "FILE")]
    shard_map: Option<PathBuf>,

    /// The cluster's keygens, separated by commas
    #[arg(
        long,
        env = "WAYPOST_KEYGEN",
        value_name = "HOST:PORT,..",
        value_delimiter = ','
    )]
    keygen: Vec<String>,

    /// The cluster's analytics consumers, separated by commas
    #[arg(
        long,
        env = "WAYPOST_ANALYTICS",
        value_name = "HOST:PORT,..",
        value_delimiter = ','
    )]
    analytics: Vec<String>,

    #[command(flatten)]
    tls: TlsOptions,

    /// Leave out links whose slugs have other links in the cluster, instead of importing
    /// nothing
    #[arg(long, requires = "full")]
    skip_occupied: bool,
}

/// Why a full import ends before all is there and read back.
#[derive(Debug, thiserror::Error)]
enum Stop {
    #[error(transparent)]
    Damaged(#[from] Damaged),
    #[error(
        "{peer} gave no answer of use for too long: {problem}. It may be run again; services \
         that speak TLS are asked with --tls-cert, --tls-key and --tls-ca, and others without"
    )]
    Unreachable { peer: String, problem: String },
    #[error("{peer} refuses: {}", status.message())]
    Refused { peer: String, status: Status },
    #[error("shard {0} is not in the shard map, and has some of the links")]
    Unknown(String),
    #[error(
        "the cluster mints slugs with another slug-key, and would hand out slugs that the \
         instance has given to its links. Give it the instance's slug-key before anything is \
         created in it (see docs/moving.md)"
    )]
    OtherKey,
    #[error(
        "{count} of the slugs have other links in the cluster: {names}. Nothing was imported. \
         Import into a cluster without these links, or leave out those of the file with \
         --skip-occupied"
    )]
    Occupied { count: usize, names: String },
    #[error(
        "{count} links are not there: {names}. The cluster has other links under these slugs, \
         or its shards refuse them; their logs say why"
    )]
    Missing { count: usize, names: String },
    #[error(
        "what was read back differs from the file: {links} links ({names}) and {rollups} rows \
         of statistics. Run it again"
    )]
    Differs {
        links: usize,
        names: String,
        rollups: u64,
    },
}

/// Names that a message tells.
const MOST_NAMES: usize = 20;

/// Links that are told by their slugs.
#[derive(Debug, Default)]
struct Names {
    count: usize,
    first: Vec<String>,
}

impl Names {
    fn add(&mut self, slug: &str) {
        self.add_some(1, &[slug]);
    }

    /// Adds as many, of which the first are known.
    fn add_some(&mut self, count: usize, first: &[impl AsRef<str>]) {
        self.count += count;
        let room = MOST_NAMES - self.first.len();
        // A damaged row may hold anything.
        let named = first.iter().map(|slug| slug.as_ref().escape_debug());
        self.first
            .extend(named.take(room).map(|slug| slug.to_string()));
    }

    fn told(&self) -> String {
        let names = self.first.join(", ");
        match self.count - self.first.len() {
            0 => names,
            more => format!("{names} and {more} more"),
        }
    }
}

/// Writes all that the instance in this folder has.
pub(super) fn export(data: &Path, file: &Path) -> Result<(), Error> {
    let part = super::part_of(file);
    let unwritable =
        |error: std::io::Error| Error::failed(format!("write {}: {error}", part.display()), error);
    // It holds destinations and the hashes of passwords.
    let out = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&part)
        .map_err(unwritable)?;
    let exported = super::wait_for(export::export(data, BufWriter::new(&out)))??;
    out.sync_all().map_err(unwritable)?;
    std::fs::rename(&part, file).map_err(unwritable)?;
    eprintln!("{exported}");
    let damaged = exported.damaged;
    match damaged.count {
        0 => Ok(()),
        count => Err(Error::failed(
            format!(
                "export {count} links ({}): their rows are damaged, or were not written by this \
                 instance. The others are in {}",
                damaged.told(),
                file.display()
            ),
            "rows are damaged",
        )),
    }
}

/// Brings all that is in the file into a cluster, and reads it back.
pub(super) fn import(target: &Target, file: &Path) -> Result<(), Error> {
    let mut full = FullFile::open(file)
        .map_err(|error| Error::failed(format!("read {}: {error}", file.display()), error))?;
    let imported = super::wait_for(async {
        // Here, since connections belong to the runtime.
        let cluster = target.cluster()?;
        let imported = import::import(&cluster, &mut full, target.skip_occupied).await;
        imported.map_err(|stop| Error::failed(format!("import all: {stop}"), stop))
    })??;
    println!("{imported}");
    Ok(())
}

impl Target {
    fn cluster(&self) -> Result<Cluster, Error> {
        let given = |option, value: &Option<PathBuf>| value.clone().ok_or_else(|| needed(option));
        let secrets_dir = given("--secrets-dir", &self.secrets_dir)?;
        let map = given("--shard-map", &self.shard_map)?;
        for (option, addresses) in [("--keygen", &self.keygen), ("--analytics", &self.analytics)] {
            if addresses.is_empty() {
                return Err(needed(option).into());
            }
        }
        let (secret, expected) = (ServiceToken::SECRET, ServiceToken::EXPECTED);
        let token = secrets::parse(&secrets_dir, secret, expected, ServiceToken::parse)?;
        let tls = self.tls.open_for_command()?;
        let caller = Caller { token, tls };
        Ok(Cluster::connect(
            &map,
            &self.keygen,
            &self.analytics,
            &caller,
        )?)
    }
}

fn needed(option: &'static str) -> Invalid {
    Invalid {
        option,
        problem: "import --full needs it, to reach the cluster's parts".to_owned(),
    }
}
