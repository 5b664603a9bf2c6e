//! Options: from flags, the environment and a file, in this order of precedence.
//!
//! The file is TOML with one key per option, named as the flag with `_` for `-`.
//! What it says becomes the option's default, so flags and environment win.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::builder::Resettable;

use crate::metrics::{self, Registry};

/// Prints all options as a Markdown table: what the documentation is made of.
const MARKDOWN_FLAG: &str = "--options-as-markdown";

/// Prints all metrics as the rows of a Markdown table.
const METRICS_FLAG: &str = "--metrics-as-markdown";

/// A flag, to be the only one, and the Markdown that it prints.
pub type Page = (&'static str, fn() -> String);

/// The options of one binary.
pub trait Options: clap::Parser + Send + 'static {
    /// The options that every process has.
    fn process(&self) -> &ProcessOptions;

    /// Where the admin port listens.
    fn admin_listen(&self) -> SocketAddr;

    /// Carries out a command that prints and ends instead of serving, if one was
    /// given.
    fn run_instead(&self) -> Option<Result<(), crate::Error>> {
        None
    }

    /// What documentation is made of besides the options.
    fn pages() -> &'static [Page] {
        &[]
    }

    /// Registers every metric of this binary that the runtime does not register by itself:
    /// what the documentation is made of.
    ///
    /// # Errors
    /// If two metrics have the same name.
    fn register_metrics(registry: &Registry) -> metrics::Result<()>;

    /// Checks what no single option can: how options fit together.
    ///
    /// # Errors
    /// Names the option and what is wrong with it.
    fn check(&self) -> Result<(), Invalid> {
        Ok(())
    }
}

/// The options that every process has.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Process")]
pub struct ProcessOptions {
    /// TOML file with further options, one key per flag, `_` for `-`
    #[arg(long, env = "WAYPOST_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Which log lines are written: off, error, warn, info, debug, trace; or per module,
    /// as in info,waypost_gateway=debug
    #[arg(
        long,
        env = "WAYPOST_LOG",
        default_value = "info",
        value_name = "FILTER"
    )]
    pub log: String,

    /// How log lines look; auto: text on a terminal, else one JSON object a line
    #[arg(long, env = "WAYPOST_LOG_FORMAT", default_value = "auto")]
    pub log_format: LogFormat,

    /// Time to finish what has begun after SIGTERM or SIGINT, in milliseconds
    #[arg(long = "shutdown-grace-ms", env = "WAYPOST_SHUTDOWN_GRACE_MS",
          default_value = "25000", value_name = "MS", value_parser = milliseconds)]
    pub shutdown_grace: Duration,

    /// OpenTelemetry collector (OTLP over gRPC) for traces, as a URL; none: no traces
    #[arg(long, env = "WAYPOST_OTLP_ENDPOINT", value_name = "URL")]
    pub otlp_endpoint: Option<String>,

    /// One in this many requests without a trace of their own is traced
    #[arg(
        long,
        env = "WAYPOST_TRACE_ONE_IN",
        default_value = "1000",
        value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub trace_one_in: u32,

    /// Threads that serve; 0: one per core
    #[arg(long, env = "WAYPOST_THREADS", default_value = "0", value_name = "N",
          value_parser = clap::value_parser!(u16).range(0..=1024))]
    pub threads: u16,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    Auto,
    Json,
    Text,
}

/// An option that cannot be worked with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{option}: {problem}")]
pub struct Invalid {
    /// The flag, with its dashes.
    pub option: &'static str,
    pub problem: String,
}

/// Why there are no options to start with.
#[derive(Debug)]
pub enum Stop {
    /// `--help` or `--version`: the text to print.
    Shown(String),
    /// One line that names the option and what is wrong.
    Bad(String),
}

/// Reads flags (without the program's name), environment and file.
///
/// # Errors
/// Says in one line what is wrong, or gives the text that was asked for.
pub fn parse<C: Options>(flags: impl IntoIterator<Item = OsString>) -> Result<C, Stop> {
    let mut arguments = vec![OsString::from(C::command().get_name())];
    arguments.extend(flags);
    let mut command = C::command();
    if let Some(flag) = arguments.get(1) {
        if flag == MARKDOWN_FLAG {
            return Err(Stop::Shown(markdown(&command)));
        }
        if flag == METRICS_FLAG {
            return Err(Stop::Shown(rows_of_metrics::<C>()));
        }
        if let Some((_, page)) = C::pages().iter().find(|page| flag == page.0) {
            return Err(Stop::Shown(page()));
        }
    }
    if let Some(file) = file_option(&arguments) {
        let text = std::fs::read_to_string(&file).map_err(|error| {
            Stop::Bad(format!("--config: cannot read {}: {error}", file.display()))
        })?;
        command = with_defaults(command, &file, &text)?;
    }
    let options: C = read(command, arguments)?;
    options
        .check()
        .map_err(|invalid| Stop::Bad(invalid.to_string()))?;
    Ok(options)
}

/// Reads flags, the program's name before them, and the environment, for a command that is
/// no service.
///
/// # Errors
/// Says in one line what is wrong, or gives the text that was asked for.
pub fn parse_command<C: clap::Parser>(
    arguments: impl IntoIterator<Item = OsString>,
) -> Result<C, Stop> {
    read(C::command(), arguments.into_iter().collect())
}

fn read<C: clap::Parser>(command: clap::Command, arguments: Vec<OsString>) -> Result<C, Stop> {
    without_empty_environment(command)
        // "-1" is a bad value of an option that is named, not an unknown flag.
        .mut_args(|argument| {
            let takes_value = argument.get_action().takes_values();
            argument.allow_negative_numbers(takes_value)
        })
        .try_get_matches_from(arguments)
        .and_then(|matches| C::from_arg_matches(&matches))
        .map_err(|error| stop(&error))
}

fn rows_of_metrics<C: Options>() -> String {
    let registry = Registry::new();
    let registered =
        crate::process::register_metrics(&registry).and_then(|_| C::register_metrics(&registry));
    registered.expect("no two metrics have the same name");
    registry.markdown()
}

/// Whole milliseconds, at least 1.
///
/// # Errors
/// If the text is no such number.
pub fn milliseconds(text: &str) -> Result<Duration, String> {
    match text.parse::<u64>() {
        Ok(0) | Err(_) => Err("expected a whole number of milliseconds from 1 on".to_owned()),
        Ok(millis) => Ok(Duration::from_millis(millis)),
    }
}

/// Whole seconds, at least 1.
///
/// # Errors
/// If the text is no such number.
pub fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<u32>() {
        Ok(0) | Err(_) => Err("expected a whole number of seconds from 1 on".to_owned()),
        Ok(seconds) => Ok(Duration::from_secs(seconds.into())),
    }
}

/// An empty variable is as good as none: compose files and unit files set those.
fn without_empty_environment(mut command: clap::Command) -> clap::Command {
    let is_empty = |argument: &&clap::Arg| {
        let name = argument.get_env();
        name.and_then(std::env::var_os)
            .is_some_and(|value| value.is_empty())
    };
    let empty: Vec<clap::Id> = command
        .get_arguments()
        .filter(is_empty)
        .map(|argument| argument.get_id().clone())
        .collect();
    for id in empty {
        command = command.mut_arg(id, |argument| argument.env(Resettable::Reset));
    }
    command
}

fn markdown(command: &clap::Command) -> String {
    let mut table = "| Option | Environment | Default | Meaning |\n|---|---|---|---|\n".to_owned();
    for argument in command.get_arguments() {
        let Some(flag) = argument.get_long() else {
            continue;
        };
        let value = argument
            .get_value_names()
            .and_then(|names| names.first())
            .map_or("", |name| name.as_str());
        let environment = argument
            .get_env()
            .map(|name| format!("`{}`", name.to_string_lossy()))
            .unwrap_or_default();
        let defaults: Vec<String> = argument
            .get_default_values()
            .iter()
            .map(|value| format!("`{}`", value.to_string_lossy()))
            .collect();
        let meaning = argument.get_help().map(ToString::to_string);
        table += &format!(
            "| `--{flag} {value}` | {environment} | {} | {} |\n",
            if argument.is_required_set() {
                "required".to_owned()
            } else {
                defaults.join(", ")
            },
            meaning.unwrap_or_default().replace('|', "\\|"),
        );
    }
    table
}

/// The file that the flags or the environment name, before anything is parsed.
fn file_option(arguments: &[OsString]) -> Option<PathBuf> {
    let flag = arguments.iter().enumerate().find_map(|(at, argument)| {
        let text = argument.to_str()?;
        if text == "--config" {
            return arguments.get(at + 1).cloned();
        }
        text.strip_prefix("--config=").map(OsString::from)
    });
    flag.or_else(|| std::env::var_os("WAYPOST_CONFIG").filter(|value| !value.is_empty()))
        .map(PathBuf::from)
}

fn with_defaults(
    mut command: clap::Command,
    file: &Path,
    text: &str,
) -> Result<clap::Command, Stop> {
    let bad = |problem: String| Stop::Bad(format!("--config: {}: {problem}", file.display()));
    let table: toml::Table = text
        .parse()
        .map_err(|error: toml::de::Error| bad(error.message().replace('\n', " ")))?;
    for (key, value) in table {
        let id = command
            .get_arguments()
            .find(|arg| {
                arg.get_long()
                    .is_some_and(|long| long.replace('-', "_") == key)
            })
            .map(|arg| arg.get_id().clone())
            .filter(|id| id != "config")
            .ok_or_else(|| bad(format!("there is no option \"{key}\"")))?;
        let value = plain(&value).ok_or_else(|| {
            bad(format!(
                "\"{key}\" is not a text, a number, true, false or a list of texts"
            ))
        })?;
        command = command.mut_arg(id, |arg| arg.required(false).default_value(value));
    }
    Ok(command)
}

/// The text that the same value has on the command line.
fn plain(value: &toml::Value) -> Option<String> {
    Some(match value {
        toml::Value::String(text) => text.clone(),
        toml::Value::Integer(number) => number.to_string(),
        toml::Value::Float(number) => number.to_string(),
        toml::Value::Boolean(truth) => truth.to_string(),
        toml::Value::Array(items) => items
            .iter()
            .map(|item| item.as_str())
            .collect::<Option<Vec<_>>>()?
            .join(","),
        toml::Value::Datetime(_) | toml::Value::Table(_) => return None,
    })
}

fn stop(error: &clap::Error) -> Stop {
    use clap::error::ErrorKind;
    match error.kind() {
        ErrorKind::DisplayHelp
        | ErrorKind::DisplayVersion
        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => Stop::Shown(error.to_string()),
        _ => {
            let text = error.to_string();
            let first = text.split("\n\n").next().unwrap_or_default();
            let line = first.split_whitespace().collect::<Vec<_>>().join(" ");
            Stop::Bad(line.trim_start_matches("error: ").to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    #[command(name = "sample")]
    struct Sample {
        #[command(flatten)]
        process: ProcessOptions,
        /// Where it listens
        #[arg(long, default_value = "127.0.0.1:1")]
        listen: SocketAddr,
        /// A database, as a URL
        #[arg(long)]
        postgres_url: String,
    }

    impl Options for Sample {
        fn process(&self) -> &ProcessOptions {
            &self.process
        }
        fn admin_listen(&self) -> SocketAddr {
            self.listen
        }
        fn register_metrics(registry: &Registry) -> metrics::Result<()> {
            registry.gauge("sample_size", "Size").map(drop)
        }
    }

    fn read(flags: &[&str]) -> Result<Sample, String> {
        parse(flags.iter().map(OsString::from)).map_err(|stop| match stop {
            Stop::Shown(text) | Stop::Bad(text) => text,
        })
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let text =
            "listen = \"127.0.0.1:2\"\npostgres_url = \"postgres://a\"\nshutdown_grace_ms = 7\n";
        std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
        let path = file.path().to_str().unwrap();
        let sample = read(&["--config", path, "--listen", "127.0.0.1:3"]).unwrap();
        assert_eq!(sample.listen.port(), 3);
        assert_eq!(sample.postgres_url, "postgres://a");
        assert_eq!(sample.process.shutdown_grace, Duration::from_millis(7));
    }

    #[test]
    fn the_table_of_options_holds_names_defaults_and_meanings() {
        let table = read(&[MARKDOWN_FLAG]).unwrap_err();
        let expected =
            "| `--shutdown-grace-ms MS` | `WAYPOST_SHUTDOWN_GRACE_MS` | `25000` | Time to";
        assert!(table.contains(expected), "{table}");
        assert!(table.contains("| `--postgres-url POSTGRES_URL` |  | required | A database"));
    }

    #[test]
    fn the_rows_of_metrics_hold_those_of_every_process_and_its_own() {
        let rows = read(&[METRICS_FLAG]).unwrap_err();
        for row in [
            "| `process_cpu_seconds_total` | counter |  | Total",
            "| `sample_size` | gauge |  | Size |\n",
            "| `waypost_build_info` | gauge | `version`: of the release; `revision`: of",
            "| `waypost_watched_file_current` | gauge | `file`: what it is for",
        ] {
            assert!(rows.contains(row), "{row} is not in {rows}");
        }
    }

    #[test]
    fn bad_configuration_is_one_line_that_names_the_option() {
        let missing = read(&[]).unwrap_err();
        assert!(
            missing.contains("--postgres-url") && !missing.contains('\n'),
            "{missing}"
        );
        let wrong = read(&["--postgres-url", "x", "--listen", "nowhere"]).unwrap_err();
        assert!(
            wrong.contains("--listen") && !wrong.contains('\n'),
            "{wrong}"
        );
        let mut file = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut file, b"lisen = \"127.0.0.1:2\"").unwrap();
        let unknown = read(&["--config", file.path().to_str().unwrap()]).unwrap_err();
        assert!(unknown.contains("\"lisen\""), "{unknown}");
    }
}
