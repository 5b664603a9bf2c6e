//! A run from start to report: reach the targets, prepare the links, go
//! through the steps, judge.

use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::client::Connection;
use crate::links::{self, Links};
use crate::options::{LinkSource, Plan};
use crate::record::{Latencies, Record, Second};
use crate::report::{self, Report, StepReport, Tick};
use crate::seed;
use crate::span::Pretty;
use crate::traffic::Traffic;
use crate::worker::{self, Share, SharedRecord, Step, lock};

/// Time for all workers to take a step before its first request is due.
const LEAD: Duration = Duration::from_millis(20);
/// Steps that wait for a worker: one is run at a time.
const STEPS_AHEAD: usize = 1;

/// Between two lines of progress.
const SECOND: Duration = Duration::from_secs(1);

/// Why a run ends without a report.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody there.
    #[error("connect to {0}")]
    Unreachable(url::Url),
    /// See [`seed::Error`].
    #[error(transparent)]
    Seed(#[from] seed::Error),
    /// See [`links::Error`].
    #[error(transparent)]
    Links(#[from] links::Error),
    /// A thread or its event loop could not be had.
    #[error("run a worker thread")]
    Worker(#[source] io::Error),
    /// A worker ended before its time.
    #[error("keep all workers running")]
    WorkerLost,
    /// A report could not be written.
    #[error("write the report to {}", .0.display())]
    Write(PathBuf, #[source] io::Error),
}

/// Runs a plan: progress goes to stderr, the text report to stdout, the others
/// to their files.
///
/// # Errors
/// When there is nothing to report; load that fails is reported.
pub fn run(plan: &Plan) -> Result<Report, Error> {
    let links = prepare(plan)?;
    let traffic = Traffic::new(plan.mix, links, plan.zipf, plan.authorization.clone());
    let mut fleet = Fleet::start(plan, Arc::new(traffic))?;
    let mut steps = Vec::new();
    for (index, &rate) in plan.rates.steps().iter().enumerate() {
        let step = fleet.step(index, rate)?;
        let sustained = step.sustained;
        steps.push(step);
        if plan.rates.until_saturation() && !sustained {
            break;
        }
    }
    fleet.stop()?;
    let report = Report::new(plan, steps);
    publish(plan, &report)?;
    Ok(report)
}

fn prepare(plan: &Plan) -> Result<Links, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::Worker)?;
    runtime.block_on(async {
        for target in &plan.targets {
            let reached = Connection::new(target.clone()).connect().await;
            reached.map_err(|_| Error::Unreachable(target.url().clone()))?;
        }
        let mut links = match &plan.links {
            LinkSource::None => Links::default(),
            LinkSource::Read(file) => Links::read(file)?,
            LinkSource::Create(count, file) => {
                let token = plan.authorization.as_ref();
                let links = seed::create(&plan.targets, *count, token).await?;
                if let Some(file) = file {
                    links.write(file)?;
                }
                links
            }
        };
        links.shuffle(&mut fastrand::Rng::with_seed(plan.seed));
        Ok(links)
    })
}

fn publish(plan: &Plan, report: &Report) -> Result<(), Error> {
    print!("{}", report::text::render(report));
    let files = [
        (&plan.json, report::json as fn(&Report) -> String),
        (&plan.html, report::html::render),
    ];
    for (file, render) in files {
        if let Some(path) = file {
            std::fs::write(path, render(report))
                .map_err(|error| Error::Write(path.clone(), error))?;
        }
    }
    Ok(())
}

/// The worker threads, connected and waiting for steps.
struct Fleet<'a> {
    plan: &'a Plan,
    workers: Vec<Member>,
    /// One message from each worker when it is ready, and after each step.
    done: Receiver<()>,
}

struct Member {
    steps: mpsc::Sender<Step>,
    thread: thread::JoinHandle<io::Result<()>>,
}

impl<'a> Fleet<'a> {
    fn start(plan: &'a Plan, traffic: Arc<Traffic>) -> Result<Self, Error> {
        let (tell, done) = channel();
        let mut workers = Vec::new();
        for index in 0..plan.threads {
            let (steps, receiver) = mpsc::channel(STEPS_AHEAD);
            let share = Share {
                index,
                workers: plan.threads,
            };
            let (plan, traffic, tell) = (plan.clone(), Arc::clone(&traffic), tell.clone());
            let thread = thread::Builder::new()
                .name(format!("load-{index}"))
                .spawn(move || {
                    // Nobody listens any more only when the run has failed.
                    let done = move || {
                        let _ = tell.send(());
                    };
                    worker::run(plan, traffic, share, receiver, done)
                })
                .map_err(Error::Worker)?;
            workers.push(Member { steps, thread });
        }
        // Only the workers' own senders are left: when they are gone, `done`
        // says so instead of waiting.
        drop((tell, traffic));
        let fleet = Self {
            plan,
            workers,
            done,
        };
        for _ in 0..fleet.workers.len() {
            fleet.done.recv().map_err(|_| Error::WorkerLost)?;
        }
        Ok(fleet)
    }

    /// Runs one step on all workers and tells of its progress.
    fn step(&mut self, index: usize, rate: f64) -> Result<StepReport, Error> {
        let warmup = if index == 0 {
            self.plan.warmup
        } else {
            Duration::ZERO
        };
        let duration = self.plan.duration;
        let start = Instant::now() + LEAD;
        let end = start + warmup + duration;
        let records: Vec<SharedRecord> = self
            .workers
            .iter()
            .map(|_| Arc::new(Mutex::new(Record::new(end))))
            .collect();
        eprintln!(
            "step {}: {rate} requests/s for {}, warm-up {}",
            index + 1,
            Pretty(duration),
            Pretty(warmup)
        );
        for (worker, record) in self.workers.iter().zip(&records) {
            let step = Step {
                rate,
                start,
                warmup,
                duration,
                record: Arc::clone(record),
                // Far apart, so that no two workers or steps share a stream.
                seed: self.plan.seed.wrapping_add((index as u64 + 1) << 32),
            };
            let sent = worker.steps.blocking_send(step);
            sent.map_err(|_| Error::WorkerLost)?;
        }
        let timeline = self.watch(start + warmup, &records)?;
        Ok(conclude(self.plan, rate, &records, timeline))
    }

    /// Prints a line a second until all workers are done, and one for what is
    /// left then, unless that is too short to make a rate of.
    fn watch(&self, start: Instant, records: &[SharedRecord]) -> Result<Vec<Tick>, Error> {
        let mut timeline = Vec::new();
        let mut busy = self.workers.len();
        let mut last = start;
        while busy > 0 {
            let next = last + SECOND;
            let left = next.saturating_duration_since(Instant::now());
            match self.done.recv_timeout(left) {
                Ok(()) => busy -= 1,
                Err(RecvTimeoutError::Disconnected) => return Err(Error::WorkerLost),
                Err(RecvTimeoutError::Timeout) => {
                    timeline.push(tell(start, last, next, records));
                    last = next;
                }
            }
            // A worker that fails never reports; its thread is over.
            if self
                .workers
                .iter()
                .any(|worker| worker.thread.is_finished())
            {
                return Err(Error::WorkerLost);
            }
        }
        let now = Instant::now();
        if now.saturating_duration_since(last) >= SECOND / 2 {
            timeline.push(tell(start, last, now, records));
        }
        Ok(timeline)
    }

    fn stop(self) -> Result<(), Error> {
        for worker in self.workers {
            drop(worker.steps);
            let ended = worker.thread.join().map_err(|_| Error::WorkerLost)?;
            ended.map_err(Error::Worker)?;
        }
        Ok(())
    }
}

fn tell(start: Instant, last: Instant, now: Instant, records: &[SharedRecord]) -> Tick {
    let tick = Tick::new(now - start, now - last, &seen_since(records));
    eprintln!("{}", report::text::progress(&tick));
    tick
}

fn seen_since(records: &[SharedRecord]) -> Second {
    let mut second = Second::default();
    for record in records {
        lock(record).drain_second(&mut second);
    }
    second
}

fn conclude(plan: &Plan, rate: f64, records: &[SharedRecord], timeline: Vec<Tick>) -> StepReport {
    let mut kinds = std::collections::BTreeMap::new();
    let mut lag = Latencies::default();
    for record in records {
        let record = lock(record);
        lag.merge(&record.lag);
        for (kind, tally) in &record.kinds {
            let total: &mut crate::record::Tally = kinds.entry(*kind).or_default();
            total.merge(tally);
        }
    }
    StepReport::new(plan, rate, &kinds, &lag, timeline)
}
