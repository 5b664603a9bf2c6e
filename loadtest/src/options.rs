//! What the caller may set, and the plan that follows once it makes sense.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Parser};
use http::HeaderValue;

use crate::mix::{Kind, Mix};
use crate::objective::Objective;
use crate::rates::Rates;
use crate::schedule::Arrivals;
use crate::span;
use crate::target::{self, Target};

/// One connection more than this per run and one machine's ports run out.
const MAX_CONNECTIONS: usize = 20_000;
/// More threads than any machine it is run on has cores.
const MAX_THREADS: usize = 256;
/// A visitor has long gone; also keeps latencies within the histograms.
const MAX_DEADLINE: Duration = Duration::from_secs(120);
/// Links are kept in memory: about 120 bytes each.
const MAX_LINKS: usize = 50_000_000;
/// Beyond this the shape of the distribution is one single link.
const MAX_ZIPF: f64 = 10.0;

/// Open-loop load for a URL shortener: requests are due at intended times,
/// and latency counts from these.
///
/// Exit code: 0 objectives met, 1 not met, 2 could not run, 64 bad options.
#[derive(Debug, Parser)]
#[command(name = "waypost-loadtest", version, group = ArgGroup::new("rates_group").required(true))]
pub struct Options {
    /// Where to send the load, http://host:port; repeat it for round robin.
    #[arg(long = "target", value_name = "URL", required = true)]
    targets: Vec<String>,

    /// Requests a second.
    #[arg(long, value_name = "R", group = "rates_group", value_parser = Rates::parse_list)]
    rate: Option<Rates>,
    /// Several rates, one step after the other: 1000,2000,4000.
    #[arg(long, value_name = "R,R,..", group = "rates_group", value_parser = Rates::parse_list)]
    rates: Option<Rates>,
    /// Growing rates until one is not sustained: start:factor:max.
    #[arg(long, value_name = "START:FACTOR:MAX", group = "rates_group", value_parser = Rates::parse_ramp)]
    ramp: Option<Rates>,
    /// How due times are spread.
    #[arg(long, value_enum, default_value_t = Arrivals::Constant)]
    arrivals: Arrivals,
    /// Length of each step.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = span::parse)]
    duration: Duration,
    /// Time at the first rate before anything is recorded.
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = span::parse)]
    warmup: Duration,

    /// Weights of redirect, miss, create, edit and stats.
    #[arg(long, value_name = "KIND=WEIGHT,..", default_value = "redirect=1")]
    mix: Mix,
    /// Links to create first through the batch API.
    #[arg(long, value_name = "N", conflicts_with = "slugs")]
    links: Option<usize>,
    /// Links to ask for instead: lines of a slug and optionally a tab and its
    /// destination, which is then checked.
    #[arg(long, value_name = "FILE")]
    slugs: Option<PathBuf>,
    /// Write the created links here, for --slugs of a later run.
    #[arg(long, value_name = "FILE", requires = "links")]
    save_slugs: Option<PathBuf>,
    /// Exponent of the links' Zipf popularity; 0: all alike.
    #[arg(long, value_name = "S", default_value_t = 1.0)]
    zipf: f64,
    /// Seed of everything random: the same seed asks the same.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Bearer token for everything but redirects.
    #[arg(
        long,
        env = "WAYPOST_TOKEN",
        hide_env_values = true,
        default_value = ""
    )]
    token: String,

    /// Keep-alive connections in all, shared out over threads and targets.
    #[arg(long, value_name = "N", default_value_t = 64)]
    connections: usize,
    /// Threads that send.
    #[arg(long, value_name = "N", default_value_t = 1)]
    threads: usize,
    /// A request without its answer so long after its intended start failed.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = span::parse)]
    deadline: Duration,
    /// Requests due but not answered, in all; those beyond fail unsent.
    #[arg(long, value_name = "N", default_value_t = 65_536)]
    max_outstanding: usize,

    /// Objectives: p50=10ms,p99=50ms,errors=0.01%; for one kind redirect.p99=5ms.
    #[arg(long, value_name = "NAME=LIMIT,..", value_delimiter = ',')]
    slo: Vec<Objective>,
    /// Write the report as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the report as a page with drawn latency curves.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,

    /// Allow targets that are not on this machine (first of two words).
    #[arg(long)]
    allow_remote: bool,
    /// Say that this host is yours to load (second word); repeatable.
    #[arg(long = "yes-i-own-the-target", value_name = "HOST")]
    owned: Vec<String>,
}

/// Why options are refused that parse one by one.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// See [`target::Error`].
    #[error("--target: {0}")]
    Target(#[from] target::Error),
    /// An option with a value out of its range or without a companion.
    #[error("--{option}: {problem}")]
    Invalid {
        /// Its name.
        option: &'static str,
        /// What is wrong.
        problem: String,
    },
}

/// Where the links to ask for come from.
#[derive(Debug, Clone)]
pub enum LinkSource {
    /// The mix asks for none.
    None,
    /// So many are created first, and perhaps written to a file.
    Create(usize, Option<PathBuf>),
    /// They are read from a file.
    Read(PathBuf),
}

/// A run that makes sense.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "each field is the option of its name")]
pub struct Plan {
    /// At least one, each permitted.
    pub targets: Vec<Target>,
    pub rates: Rates,
    pub arrivals: Arrivals,
    pub duration: Duration,
    pub warmup: Duration,
    pub mix: Mix,
    pub links: LinkSource,
    pub zipf: f64,
    pub seed: u64,
    /// The `authorization` header, marked sensitive.
    pub authorization: Option<HeaderValue>,
    pub connections: usize,
    pub threads: usize,
    pub deadline: Duration,
    pub max_outstanding: usize,
    pub objectives: Vec<Objective>,
    pub json: Option<PathBuf>,
    pub html: Option<PathBuf>,
}

impl Options {
    /// Checks what one option's parser cannot see, and resolves the targets.
    ///
    /// # Errors
    /// Names the option and what is wrong with it.
    pub fn plan(self) -> Result<Plan, Error> {
        self.check_ranges()?;
        let links = self.link_source()?;
        self.check_objectives()?;
        let authorization = self.authorization()?;
        let targets = self
            .targets
            .iter()
            .map(|url| Target::resolve(url)?.permit(self.allow_remote, &self.owned))
            .collect::<Result<Vec<_>, target::Error>>()?;
        let lanes = self.threads * targets.len();
        require("connections", self.connections >= lanes, || {
            format!("at least {lanes} are needed, one for each thread and target")
        })?;
        let rates = self.rate.or(self.rates).or(self.ramp);
        Ok(Plan {
            targets,
            rates: rates.expect("the argument group requires one of the three"),
            arrivals: self.arrivals,
            duration: self.duration,
            warmup: self.warmup,
            mix: self.mix,
            links,
            zipf: self.zipf,
            seed: self.seed,
            authorization,
            connections: self.connections,
            threads: self.threads,
            deadline: self.deadline,
            max_outstanding: self.max_outstanding,
            objectives: self.slo,
            json: self.json,
            html: self.html,
        })
    }

    fn check_ranges(&self) -> Result<(), Error> {
        let one_to = |max: usize| format!("must be from 1 to {max}");
        require(
            "connections",
            (1..=MAX_CONNECTIONS).contains(&self.connections),
            || one_to(MAX_CONNECTIONS),
        )?;
        require("threads", (1..=MAX_THREADS).contains(&self.threads), || {
            one_to(MAX_THREADS)
        })?;
        require("zipf", (0.0..=MAX_ZIPF).contains(&self.zipf), || {
            format!("must be from 0 to {MAX_ZIPF}")
        })?;
        require(
            "deadline",
            !self.deadline.is_zero() && self.deadline <= MAX_DEADLINE,
            || "must be above 0 and at most 120s".to_owned(),
        )?;
        require("duration", !self.duration.is_zero(), || {
            "must be above 0".to_owned()
        })?;
        require("max-outstanding", self.max_outstanding > 0, || {
            "must be above 0".to_owned()
        })?;
        require(
            "links",
            self.links.is_none_or(|n| (1..=MAX_LINKS).contains(&n)),
            || one_to(MAX_LINKS),
        )
    }

    fn link_source(&self) -> Result<LinkSource, Error> {
        match (self.links, &self.slugs) {
            (Some(count), _) => Ok(LinkSource::Create(count, self.save_slugs.clone())),
            (None, Some(file)) => Ok(LinkSource::Read(file.clone())),
            (None, None) => match self.mix.kinds().find(|kind| kind.needs_links()) {
                None => Ok(LinkSource::None),
                Some(kind) => Err(Error::Invalid {
                    option: "mix",
                    problem: format!("{kind} needs --links N or --slugs FILE"),
                }),
            },
        }
    }

    fn check_objectives(&self) -> Result<(), Error> {
        let kinds: Vec<Kind> = self.mix.kinds().collect();
        let stray = self
            .slo
            .iter()
            .find(|objective| objective.kind.is_some_and(|kind| !kinds.contains(&kind)));
        match stray {
            None => Ok(()),
            Some(objective) => Err(Error::Invalid {
                option: "slo",
                problem: format!("{objective}: the mix has no such requests"),
            }),
        }
    }

    fn authorization(&self) -> Result<Option<HeaderValue>, Error> {
        if self.token.is_empty() {
            return Ok(None);
        }
        let mut value = HeaderValue::try_from(format!("Bearer {}", self.token)).map_err(|_| {
            Error::Invalid {
                option: "token",
                problem: "has characters that no header may have".to_owned(),
            }
        })?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}

fn require(
    option: &'static str,
    holds: bool,
    problem: impl FnOnce() -> String,
) -> Result<(), Error> {
    if holds {
        Ok(())
    } else {
        Err(Error::Invalid {
            option,
            problem: problem(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Plan, String> {
        let base = "waypost-loadtest --target http://127.0.0.1:1";
        let args = base.split(' ').chain(line.split_whitespace());
        let options = Options::try_parse_from(args).map_err(|error| error.to_string())?;
        options.plan().map_err(|error| error.to_string())
    }

    #[test]
    fn a_short_command_line_is_enough() {
        let plan = parse("--rate 100 --links 10").unwrap();
        assert_eq!(plan.rates.steps(), [100.0]);
        assert_eq!((plan.connections, plan.threads), (64, 1));
        assert!(matches!(plan.links, LinkSource::Create(10, None)));
    }

    #[test]
    fn bad_options_are_refused_by_name() {
        for (line, named) in [
            ("--links 10", "--rate"),
            ("--rate 1 --ramp 1:2:3 --links 1", "--ramp"),
            ("--rate 0 --links 10", "--rate"),
            ("--rate 1", "--links N or --slugs FILE"),
            ("--rate 1 --links 0", "--links"),
            ("--rate 1 --links 1 --slugs x", "--slugs"),
            ("--rate 1 --mix walk=1", "unknown kind"),
            ("--rate 1 --mix miss=1 --zipf=-1", "--zipf"),
            ("--rate 1 --mix miss=1 --zipf=NaN", "--zipf"),
            ("--rate 1 --mix miss=1 --slo stats.p50=1ms", "--slo"),
            ("--rate 1 --mix miss=1 --slo p50=fast", "--slo"),
            ("--rate 1 --mix miss=1 --threads 65", "--connections"),
            ("--rate 1 --mix miss=1 --threads 0", "--threads"),
            ("--rate 1 --mix miss=1 --deadline 1h", "--deadline"),
            ("--rate 1 --mix miss=1 --deadline 0s", "--deadline"),
            ("--rate 1 --mix miss=1 --duration 0s", "--duration"),
            (
                "--rate 1 --mix miss=1 --target http://192.0.2.1",
                "--target",
            ),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(named), "{line}: {error}");
        }
    }

    #[test]
    fn the_token_is_not_printed() {
        let plan = parse("--rate 1 --mix miss=1 --token hush").unwrap();
        assert!(!format!("{plan:?}").contains("hush"));
    }
}
