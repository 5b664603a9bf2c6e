//! `cargo xtask cluster up`: the whole system on this machine, until SIGINT.

mod observe;
mod signals;
mod state;

use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use waypost_testbed::{Cluster, Sandbox};

use crate::Error;
use crate::packages::Purpose;
use crate::programs;

/// How often the supervisor looks for dead processes.
const LOOK: Duration = Duration::from_millis(100);

/// A process that cannot start must not eat a core by trying.
const REVIVE_INTERVAL: Duration = Duration::from_secs(1);

#[derive(clap::Subcommand)]
pub(crate) enum Task {
    /// Start a cluster on loopback, in the foreground, until SIGINT
    Up(Up),
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Up {
    /// Shards, each with a Postgres of its own
    #[arg(long, default_value_t = 3)]
    shards: usize,
    /// So many of them, the last ones, begin without prefixes, for `waypost-shard-node
    /// move-prefixes`
    #[arg(long, default_value_t = 0)]
    empty_shards: usize,
    /// Processes in front of each shard
    #[arg(long, default_value_t = 2)]
    nodes_per_shard: usize,
    /// Streaming standbys of each shard's Postgres; a commit waits for one of them
    #[arg(long, default_value_t = 0)]
    replicas: usize,
    /// Gateways
    #[arg(long, default_value_t = 2)]
    gateways: usize,
    /// Key generators
    #[arg(long, default_value_t = 2)]
    keygens: usize,
    /// Analytics consumers
    #[arg(long, default_value_t = 1)]
    consumers: usize,
    /// JSON file that says where everything is; it exists while the cluster is up
    #[arg(long)]
    state: PathBuf,
    /// Start a process of ours again when it dies, and rewrite the file
    #[arg(long)]
    supervise: bool,
    /// Start Prometheus as well, with our rules and a page of the main graphs
    #[arg(long)]
    observe: bool,
    /// Leave the limit of connections on
    #[arg(long)]
    limits: bool,
    /// Speak TLS everywhere behind the gateways, with certificates of its own
    #[arg(long)]
    tls: bool,
    /// Cargo's profile to build with: dev, release or dist
    #[arg(long, default_value = "release")]
    profile: String,
}

enum Event {
    Started(Box<waypost_testbed::Result<Cluster>>),
    Signal,
}

pub(crate) fn up(options: &Up) -> Result<(), Error> {
    let state = std::path::absolute(&options.state)
        .map_err(|error| Error::Step(format!("the path of the state file: {error}")))?;
    // Whoever waits for the file must not find that of a cluster that was killed.
    let _ = std::fs::remove_file(&state);
    let purpose = match options.observe {
        true => Purpose::Observe,
        false => Purpose::RunCluster,
    };
    let programs = programs::build(&options.profile, purpose)?;
    let (sender, events) = channel();
    // Before there is any other thread, so that all of them leave signals to one.
    let signals = signals::Signals::block()?;
    let sandbox = Sandbox::create()?;
    {
        let sender = sender.clone();
        thread::spawn(move || {
            loop {
                signals.wait();
                // The loop below has ended: so does the process, any moment.
                if sender.send(Event::Signal).is_err() {
                    return;
                }
            }
        });
    }
    {
        let (options, sandbox) = (options.clone(), Arc::clone(&sandbox));
        thread::spawn(move || {
            let started = catch_unwind(|| start(&options, &programs, &sandbox));
            // A panic has been printed. Nobody listens any more if a signal came first.
            let _ = sender
                .send(started.map_or(Event::Signal, |cluster| Event::Started(Box::new(cluster))));
        });
    }
    let outcome = attend(&events, &state, options);
    // Also what a start in progress, which a signal has ended, still has running.
    sandbox.end();
    outcome
}

fn start(
    options: &Up,
    programs: &Path,
    sandbox: &Arc<Sandbox>,
) -> waypost_testbed::Result<Cluster> {
    Cluster::builder()
        .shards(options.shards)
        .empty_shards(options.empty_shards)
        .nodes_per_shard(options.nodes_per_shard)
        .replicas(options.replicas)
        .gateways(options.gateways)
        .keygens(options.keygens)
        .consumers(options.consumers)
        .limits(options.limits)
        .tls(options.tls)
        .programs(programs)
        .sandbox(sandbox)
        .start()
}

/// From the start until a signal.
fn attend(events: &Receiver<Event>, file: &Path, options: &Up) -> Result<(), Error> {
    let started = Instant::now();
    eprintln!("xtask: the cluster starts");
    let cluster = match events.recv() {
        Ok(Event::Started(cluster)) => (*cluster)?,
        Ok(Event::Signal) | Err(_) => return Err(Error::Step("ended before it was up".to_owned())),
    };
    let prometheus = options.observe.then(|| observe::start(&cluster));
    let prometheus = prometheus.transpose()?;
    let state = state::StateFile::write(file, &cluster, prometheus.as_ref())?;
    let (url, path) = (cluster.url(0), file.display());
    let seconds = started.elapsed().as_secs_f64();
    eprintln!("xtask: the cluster is up after {seconds:.1} s: {url}, {path}; ^C ends it");
    if let Some(prometheus) = &prometheus {
        eprintln!("xtask: its graphs are at {}", prometheus.page());
    }
    let logs = cluster.sandbox().logs();
    eprintln!("xtask: the logs are in {}", logs.display());
    let mut revived = Instant::now();
    loop {
        match events.recv_timeout(LOOK) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(_) | Err(RecvTimeoutError::Disconnected) => break,
        }
        if !options.supervise || revived.elapsed() < REVIVE_INTERVAL {
            continue;
        }
        let names = cluster.revive()?;
        if !names.is_empty() {
            revived = Instant::now();
            eprintln!("xtask: started again: {}", names.join(", "));
            state.rewrite(&cluster)?;
        }
    }
    eprintln!("xtask: the cluster ends");
    Ok(())
}
