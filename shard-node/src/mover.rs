//! `waypost-shard-node move-prefixes`: moves prefixes from the shards that own them to
//! another, while all of them serve.
//!
//! It keeps nothing: what has been done is in the shards' databases, so that running it
//! again goes on wherever an earlier run has ended.

mod copy;
mod hand_over;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use tonic::Status;
use waypost_domain::mint::counter_range;
use waypost_domain::shard_map::ShardMap;
use waypost_domain::{Epoch, Prefix, ShardId};
use waypost_proto::auth::ServiceToken;
use waypost_proto::handover::{Change, SweepRequest};
use waypost_runtime::admin::Readiness;
use waypost_runtime::config::{self, Invalid, Stop as Unparsed, milliseconds};
use waypost_runtime::metrics::Registry;
use waypost_runtime::tls::{Tls, TlsOptions};
use waypost_runtime::traces::Sampler;
use waypost_runtime::watched::Watcher;
use waypost_runtime::{Process, Shutdown, secrets};

use self::hand_over::Mover;
use self::view::{Standing, View};
use crate::peers::{Peer, Peers};

/// The first argument that has the binary do this instead of serving.
pub const COMMAND: &str = "move-prefixes";

/// How long one request is repeated while nobody answers it: the time of a restart or of
/// a failover.
const PATIENCE: Duration = Duration::from_secs(90);

/// Prefixes that are copied together.
const CHUNK: usize = 64;

/// Chunks in a row that could not be moved, before it is given up.
const MAX_FAILURES: u32 = 10;

/// After a chunk that could not be moved.
const PAUSE: Duration = Duration::from_millis(500);

/// Rows that are deleted by one statement.
const SWEEP: u32 = 500;

/// Between two of these statements, which leave the database to others.
const SWEEP_PAUSE: Duration = Duration::from_millis(20);

/// Moves prefixes of slugs, and the links with them, from the shards that own them to
/// another, while all of them serve. May be interrupted and run again at any time
#[derive(Debug, clap::Parser)]
#[command(name = "waypost-shard-node move-prefixes", version)]
struct Options {
    /// The shard that takes them. Without --prefixes it is given its fair share of those of
    /// its region, evenly from the others
    #[arg(long, value_name = "ID", value_parser = shard_id, required_unless_present = "status")]
    to: Option<ShardId>,

    /// Move these, whichever shard they belong to, as in aB,c0
    #[arg(long, value_name = "PREFIX,..", value_delimiter = ',', value_parser = prefix)]
    prefixes: Vec<Prefix>,

    /// Move no more than so many, to see how it goes
    #[arg(long, value_name = "N")]
    at_most: Option<usize>,

    /// Say what would be moved, and change nothing
    #[arg(long)]
    dry_run: bool,

    /// Say which shard has what and what is under way, and change nothing
    #[arg(long, conflicts_with_all = ["to", "prefixes", "at_most", "dry_run"])]
    status: bool,

    /// The longest that writes to some prefixes are held before they change hands, in
    /// milliseconds. A group that takes longer is tried again
    #[arg(long = "freeze-ms", default_value = "5000", value_name = "MS",
          value_parser = freeze)]
    freeze: Duration,

    /// The shard map, a JSON file, as the services have it
    #[arg(long, env = "WAYPOST_SHARD_MAP", value_name = "FILE")]
    shard_map: PathBuf,

    /// Folder with the secret `service-token`
    #[arg(long, env = "WAYPOST_SECRETS_DIR", value_name = "FOLDER")]
    secrets_dir: PathBuf,

    #[command(flatten)]
    tls: TlsOptions,
}

/// Why it does not go on. What has been moved stays so.
#[derive(Debug, thiserror::Error)]
enum Stop {
    #[error(transparent)]
    Config(#[from] Invalid),
    #[error(transparent)]
    Failed(#[from] waypost_runtime::Error),
    #[error("shard {shard} was asked to {doing}, and answered: {}", status.message())]
    Asked {
        shard: ShardId,
        doing: &'static str,
        status: Status,
    },
    #[error("the node {node} of shard {shard} runs a release that cannot move prefixes")]
    Old { shard: ShardId, node: String },
    #[error("the node {node} in the map under {shard} says that it is of {found}")]
    OtherShard {
        shard: ShardId,
        node: String,
        found: String,
    },
    #[error("the shards' answers make no sense: {0}")]
    Strange(&'static str),
    #[error(
        "prefix {prefix} {standing}. A prefix moves within a region only, where its slugs are \
         minted; if it should be here, see docs/runbooks/ownership-disagrees.md"
    )]
    NotHere { prefix: Prefix, standing: String },
    #[error("prefix {0} has had so many owners that no counter is left for another")]
    NoCounters(Prefix),
    #[error("too many groups in a row could not be moved; run it again when the cause is gone")]
    Failures,
    #[error("cannot write: {0}")]
    Output(#[from] std::io::Error),
}

/// Runs the command; the arguments are those after its name.
pub fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let name = OsString::from("waypost-shard-node move-prefixes");
    let options = match config::parse_command::<Options>(std::iter::once(name).chain(arguments)) {
        Ok(options) => options,
        Err(Unparsed::Shown(text)) => {
            print!("{text}");
            return ExitCode::SUCCESS;
        }
        Err(Unparsed::Bad(line)) => return bad(&line),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("{COMMAND}: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Stop::Config(invalid) | Stop::Failed(waypost_runtime::Error::Config(invalid))) => {
            bad(&invalid.to_string())
        }
        Err(stop) => {
            eprintln!("{COMMAND}: {stop}");
            ExitCode::FAILURE
        }
    }
}

fn bad(line: &str) -> ExitCode {
    eprintln!("{COMMAND}: bad configuration: {line}");
    // As of the services: starting again does not help.
    ExitCode::from(64)
}

async fn run(options: &Options) -> Result<(), Stop> {
    let peers = peers(options)?;
    let Some(to) = &options.to else {
        return status(&peers).await;
    };
    let taker = peers.get(to).ok_or_else(|| Invalid {
        option: "--to",
        problem: format!(
            "{} does not name the shard {to}",
            options.shard_map.display()
        ),
    })?;
    let peers = &peers.in_region(&taker.region);
    let mut view = View::of(peers).await?;
    if options.dry_run {
        let plan = plan(options, &view, taker, usize::MAX)?;
        println!(
            "would move {} prefixes to {to}{}",
            plan.len(),
            sources(&plan)
        );
        println!("{}", join(&plan));
        return Ok(());
    }
    let mut left = options.at_most.unwrap_or(usize::MAX);
    let (mut moved, mut failures) = (0, 0);
    loop {
        view = settled(peers, view).await?;
        let planned = plan(options, &view, taker, left)?;
        let Some(chunk) = first_chunk(&planned) else {
            break;
        };
        if moved == 0 && failures == 0 {
            println!(
                "moving {} prefixes to {to}{}",
                planned.len(),
                sources(&planned)
            );
        }
        let giver = peers
            .get(&chunk[0].owner)
            .ok_or(Stop::Strange("an unknown owner"))?;
        let mover = Mover {
            giver,
            taker,
            freeze: options.freeze,
        };
        match mover.run(chunk.iter().map(change).collect()).await {
            Ok(done) => {
                moved += chunk.len();
                left -= chunk.len();
                failures = 0;
                println!(
                    "{moved} of {} prefixes moved; {} links of {}, writes held for {} ms at most",
                    moved + planned.len() - chunk.len(),
                    done.links,
                    giver.id,
                    done.held.as_millis()
                );
            }
            Err(stop) => {
                failures += 1;
                if failures >= MAX_FAILURES {
                    eprintln!("{COMMAND}: {stop}");
                    return Err(Stop::Failures);
                }
                eprintln!("trying again: {stop}");
                tokio::time::sleep(PAUSE).await;
            }
        }
        view = View::of(peers).await?;
    }
    let swept = sweep(peers).await?;
    println!("done: {moved} prefixes moved to {to}; {swept} rows deleted where they were before");
    Ok(())
}

/// Tells what every shard says, region by region: those of another one may be out of
/// reach from here.
async fn status(peers: &Peers) -> Result<(), Stop> {
    let regions: BTreeSet<&str> = peers.all().map(|peer| peer.region.as_str()).collect();
    for region in regions {
        match View::glance(&peers.in_region(region)).await {
            Ok(view) => print!("{view}"),
            Err(stop) => println!("region {region}: {stop}"),
        }
    }
    Ok(())
}

fn peers(options: &Options) -> Result<Peers, Stop> {
    let invalid = |problem| Invalid {
        option: "--shard-map",
        problem: format!("{}: {problem}", options.shard_map.display()),
    };
    let text =
        std::fs::read_to_string(&options.shard_map).map_err(|error| invalid(error.to_string()))?;
    let map = ShardMap::parse(&text).map_err(|error| invalid(error.to_string()))?;
    let (secret, expected) = (ServiceToken::SECRET, ServiceToken::EXPECTED);
    let token = secrets::parse(&options.secrets_dir, secret, expected, ServiceToken::parse)?;
    Ok(Peers::of(&map, &token, tls(options)?.as_ref())?)
}

fn tls(options: &Options) -> Result<Option<Tls>, Stop> {
    let registry = Registry::new();
    let watcher = Watcher::register(&registry)
        .map_err(|error| waypost_runtime::Error::failed("register metrics", error))?;
    let process = Process {
        shutdown: Shutdown::new(Duration::ZERO),
        readiness: Readiness::default(),
        registry,
        sampler: Sampler::OFF,
        watcher,
        threads: 1,
    };
    Ok(options.tls.open(&process)?)
}

/// A prefix that is to move.
#[derive(Debug, Clone)]
struct Planned {
    prefix: Prefix,
    owner: ShardId,
    /// In which it gets its next owner.
    epoch: Epoch,
}

/// What is to move, at most so many prefixes.
fn plan(
    options: &Options,
    view: &View<'_>,
    taker: &Peer,
    at_most: usize,
) -> Result<Vec<Planned>, Stop> {
    let wanted = match options.prefixes.is_empty() {
        true => view.fill(taker),
        false => {
            let mut prefixes = options.prefixes.clone();
            prefixes.sort_unstable();
            prefixes.dedup();
            prefixes
        }
    };
    let mut planned = Vec::new();
    for prefix in wanted {
        let (owner, epoch) = match view.standing(prefix) {
            Standing::Owned { by, .. } if by.id == taker.id => continue,
            Standing::Owned { by, epoch } => (by, epoch),
            standing => {
                let standing = standing.to_string();
                return Err(Stop::NotHere { prefix, standing });
            }
        };
        let next = Epoch::new(epoch.get() + 1).filter(|next| counter_range(*next).is_some());
        planned.push(Planned {
            prefix,
            owner: owner.id.clone(),
            epoch: next.ok_or(Stop::NoCounters(prefix))?,
        });
    }
    planned.truncate(at_most.min(options.at_most.unwrap_or(usize::MAX)));
    Ok(planned)
}

/// The prefixes to move next: some of one owner.
fn first_chunk(planned: &[Planned]) -> Option<Vec<Planned>> {
    let owner = &planned.first()?.owner;
    let same = planned.iter().filter(|next| next.owner == *owner);
    Some(same.take(CHUNK).cloned().collect())
}

fn change(planned: &Planned) -> Change {
    Change {
        prefix: planned.prefix.to_string(),
        epoch: planned.epoch.get(),
    }
}

/// How many come from whom.
fn sources(planned: &[Planned]) -> String {
    let mut counts = BTreeMap::new();
    for next in planned {
        *counts.entry(&next.owner).or_insert(0) += 1;
    }
    let counts: Vec<String> = counts
        .into_iter()
        .map(|(owner, count)| format!("{count} of {owner}"))
        .collect();
    match counts.is_empty() {
        true => String::new(),
        false => format!(": {}", counts.join(", ")),
    }
}

fn join(planned: &[Planned]) -> String {
    let prefixes: Vec<String> = planned.iter().map(|next| next.prefix.to_string()).collect();
    prefixes.join(",")
}

/// Completes what an earlier run has released and nobody has taken yet.
async fn settled<'a>(peers: &'a Peers, mut view: View<'a>) -> Result<View<'a>, Stop> {
    let began = std::time::Instant::now();
    while let Some(taker) = view.to_settle() {
        let peer = peers.get(&taker).ok_or(Stop::Strange("an unknown taker"))?;
        hand_over::settle(peer, PATIENCE).await?;
        view = View::of(peers).await?;
        if began.elapsed() > PATIENCE {
            break;
        }
    }
    Ok(view)
}

/// Deletes rows of prefixes where another shard is known to own them by now. Gives how
/// many.
async fn sweep(peers: &Peers) -> Result<u64, Stop> {
    let view = View::with_rows(peers).await?;
    let mut swept = 0;
    for (shard, change) in view.leftovers() {
        let peer = peers.get(&shard).ok_or(Stop::Strange("an unknown shard"))?;
        loop {
            let request = SweepRequest {
                change: Some(change.clone()),
                limit: SWEEP,
            };
            let answer = peer
                .ask(PATIENCE, request, async |mut client, request| {
                    client.sweep(request).await
                })
                .await
                .map_err(asked(peer, "delete rows"))?;
            swept += answer.deleted;
            if answer.deleted == 0 {
                break;
            }
            tokio::time::sleep(SWEEP_PAUSE).await;
        }
    }
    Ok(swept)
}

/// What is made of a shard's refusal.
fn asked(peer: &Peer, doing: &'static str) -> impl FnOnce(Status) -> Stop {
    let shard = peer.id.clone();
    move |status| Stop::Asked {
        shard,
        doing,
        status,
    }
}

fn shard_id(text: &str) -> Result<ShardId, String> {
    ShardId::parse(text).ok_or_else(|| "expected 1 to 32 characters of 0-9, a-z, -".to_owned())
}

fn prefix(text: &str) -> Result<Prefix, String> {
    Prefix::parse(text).ok_or_else(|| "expected two characters of 0-9, A-Z, a-z".to_owned())
}

fn freeze(text: &str) -> Result<Duration, String> {
    let freeze = milliseconds(text)?;
    let bounds = Duration::from_millis(200)..=Duration::from_secs(30);
    match bounds.contains(&freeze) {
        true => Ok(freeze),
        false => Err("expected 200 to 30000 milliseconds".to_owned()),
    }
}
