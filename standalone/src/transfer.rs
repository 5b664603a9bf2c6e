//! `waypost export` and `waypost import`: a tenant's links out of a running server and into
//! one, over its API, so that it is the same for one process and for a cluster. With
//! `--full`, all that an instance has, out of its data folder and into a cluster.

mod client;
mod export;
mod full;
mod import;
mod new_link;
mod rows;
mod sheet;

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use waypost_runtime::Error;
use waypost_runtime::config::Invalid;

use self::client::{Api, Server};
use self::rows::Rows;
use self::sheet::Sheet;

/// The file that is standard input or output.
const STANDARD: &str = "-";

/// The token, where no file has it. No flag does: other users see those.
const TOKEN: &str = "WAYPOST_TOKEN";

/// The options of `waypost export`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Export {
    /// Where the links go; -: standard output
    #[arg(default_value = STANDARD)]
    file: PathBuf,

    /// Write everything that the stopped instance in the data folder has instead, for
    /// import --full: links of all tenants with their versions, tombstones, counters and
    /// statistics
    #[arg(long, conflicts_with = "format")]
    full: bool,

    #[command(flatten)]
    how: How,
}

/// The options of `waypost import`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Import {
    /// Where the links come from; -: standard input
    file: PathBuf,

    /// Bring all of the file of an export --full into a cluster, past its API, and read it
    /// back. May be repeated
    #[arg(long, conflicts_with = "format")]
    full: bool,

    #[command(flatten)]
    target: full::Target,

    #[command(flatten)]
    how: How,
}

#[derive(Debug, Clone, clap::Args)]
struct How {
    /// The server, as in http://127.0.0.1:8080
    #[arg(
        long,
        env = "WAYPOST_SERVER",
        default_value = "http://127.0.0.1:8080",
        value_name = "URL"
    )]
    server: Server,

    /// File with an API key or JWT, without which the environment's WAYPOST_TOKEN is taken
    #[arg(long, env = "WAYPOST_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,

    /// How links are written; by default as the file's name ends, and jsonl without a name
    #[arg(long)]
    format: Option<Format>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// One JSON object a line
    Jsonl,
    /// Comma-separated values, with a header
    Csv,
}

/// Why it does not go on.
#[derive(Debug, thiserror::Error)]
enum Stop {
    #[error("the server answered {status} {code}: {detail}{}", hint(*status))]
    Answered {
        status: u16,
        code: String,
        detail: String,
    },
    #[error("the server gave no answer of use for too long: {0}")]
    Unreachable(String),
    #[error("the server's answer is none of Waypost's: {0}")]
    Strange(&'static str),
    #[error("cannot read on after line {line}: {source}")]
    Input { line: u64, source: io::Error },
    #[error("cannot write: {0}")]
    Output(#[from] io::Error),
}

fn hint(status: u16) -> &'static str {
    match status {
        401 => " (`waypost keys create` prints a key; set WAYPOST_TOKEN or --token-file)",
        301 | 302 | 307 | 308 => " (only http:// is spoken: ask the server itself, not its proxy)",
        _ => "",
    }
}

/// Writes all links of the token's tenant, or all that the instance in this folder has.
pub(crate) fn export(options: &Export, data: &Path) -> Result<(), Error> {
    if options.full {
        return full::export(data, named(&options.file)?);
    }
    let api = options.how.api()?;
    let format = options.how.format(&options.file);
    if options.file == Path::new(STANDARD) {
        return write_out(&api, io::stdout().lock(), format);
    }
    // The name appears with the whole: half an export is not mistaken for one.
    let part = part_of(&options.file);
    let unwritable =
        |error: io::Error| Error::failed(format!("write {}: {error}", part.display()), error);
    let file = File::create(&part).map_err(unwritable)?;
    write_out(&api, &file, format)?;
    file.sync_all().map_err(unwritable)?;
    std::fs::rename(&part, &options.file).map_err(unwritable)
}

fn write_out(api: &Api, out: impl Write, format: Format) -> Result<(), Error> {
    let mut sheet = Sheet::new(BufWriter::new(out), format);
    let exported = wait_for(export::export(api, &mut sheet))?;
    let exported = exported.map_err(|stop| Error::failed(format!("export: {stop}"), stop))?;
    eprintln!("{exported}");
    Ok(())
}

/// Creates the links of a file. Fails if any of them was refused.
pub(crate) fn import(options: &Import) -> Result<(), Error> {
    if options.full {
        return full::import(&options.target, named(&options.file)?);
    }
    let api = options.how.api()?;
    let input: Box<dyn Read> =
        if options.file == Path::new(STANDARD) {
            Box::new(io::stdin().lock())
        } else {
            let file = &options.file;
            Box::new(File::open(file).map_err(|error| {
                Error::failed(format!("read {}: {error}", file.display()), error)
            })?)
        };
    let rows = Rows::new(input, options.how.format(&options.file));
    let mut report = import::Report::default();
    let imported = wait_for(import::import(&api, rows, &mut report))?;
    println!("{report}");
    imported.map_err(|stop| {
        let doing = format!("import all: {stop}. It may be run again");
        Error::failed(doing, stop)
    })?;
    match report.refused {
        0 => Ok(()),
        refused => Err(Error::failed(
            format!("import {refused} of the links"),
            "they were refused",
        )),
    }
}

/// Where a file is written before it is whole.
fn part_of(file: &Path) -> PathBuf {
    let mut part = file.to_owned().into_os_string();
    part.push(".part");
    part.into()
}

/// The file of a full export, which is read several times.
fn named(file: &Path) -> Result<&Path, Invalid> {
    if file == Path::new(STANDARD) {
        return Err(Invalid {
            option: "--full",
            problem: "it needs the name of a file".to_owned(),
        });
    }
    Ok(file)
}

/// Runs it on this thread: it mostly waits for the server.
pub(crate) fn wait_for<T>(doing: impl Future<Output = T>) -> Result<T, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::failed("start the runtime", error))?;
    Ok(runtime.block_on(doing))
}

impl How {
    fn api(&self) -> Result<Api, Invalid> {
        let invalid = |option, problem: &str| Invalid {
            option,
            problem: problem.to_owned(),
        };
        let (from, token) = match &self.token_file {
            Some(file) => {
                let read = std::fs::read_to_string(file).map_err(|error| {
                    let problem = format!("cannot read {}: {error}", file.display());
                    invalid("--token-file", &problem)
                })?;
                ("--token-file", Some(read))
            }
            None => (TOKEN, std::env::var(TOKEN).ok()),
        };
        let token = token.as_deref().map(str::trim);
        Api::new(self.server.clone(), token.filter(|token| !token.is_empty()))
            .ok_or_else(|| invalid(from, "there is no token in it"))
    }

    fn format(&self, file: &Path) -> Format {
        let named_csv = file
            .extension()
            .is_some_and(|extension| extension.eq_ignore_ascii_case("csv"));
        match self.format {
            Some(format) => format,
            None if named_csv => Format::Csv,
            None => Format::Jsonl,
        }
    }
}
