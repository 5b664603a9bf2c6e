//! A thread that sends its share of the load: a pacer that notes what is due,
//! and connections that work it off.
//!
//! The pacer never waits for an answer. What is due while all connections are
//! busy waits in a lane's queue, and its latency counts meanwhile.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fastrand::Rng;
use tokio::sync::{Notify, mpsc};

use crate::client::Connection;
use crate::options::Plan;
use crate::record::{Failure, Record, Sample};
use crate::schedule::{Arrivals, Schedule};
use crate::target::Target;
use crate::timer::Timer;
use crate::traffic::{Ask, Traffic};

/// The event loop looks for due timers after so many tasks, well before the
/// default of 61: under load those would be a third of a millisecond.
const TASKS_BETWEEN_TIMERS: u32 = 16;

/// A record that its worker fills while others may look.
pub type SharedRecord = Arc<Mutex<Record>>;

/// Locks a record. Its counts stay usable whatever happened to another thread.
pub fn lock(record: &SharedRecord) -> MutexGuard<'_, Record> {
    record.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One step of the load, for one worker.
#[derive(Debug)]
pub struct Step {
    /// Of all workers together.
    pub rate: f64,
    /// When the first request may be due.
    pub start: Instant,
    /// Requests due in this time after the start are not recorded.
    pub warmup: Duration,
    /// The recorded time after that.
    pub duration: Duration,
    /// Where to record.
    pub record: SharedRecord,
    /// Makes each step's randomness its own.
    pub seed: u64,
}

/// Which part of the whole a worker is.
#[derive(Debug, Clone, Copy)]
pub struct Share {
    /// Its place, from 0.
    pub index: usize,
    /// Of so many.
    pub workers: usize,
}

/// Runs steps as they arrive, until there will be no more; tells of each that
/// it is over. Blocks its thread.
///
/// # Errors
/// When the system gives no event loop or timer.
pub fn run(
    plan: Plan,
    traffic: Arc<Traffic>,
    share: Share,
    mut steps: mpsc::Receiver<Step>,
    mut done: impl FnMut() + Send + 'static,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .event_interval(TASKS_BETWEEN_TIMERS)
        .build()?;
    let work = async move {
        tokio::spawn(keep_a_timer());
        let mut pacer = Pacer::start(&plan, &traffic, share).await?;
        // Tells that the connections stand.
        done();
        while let Some(step) = steps.recv().await {
            pacer.run(&step).await?;
            done();
        }
        Ok(())
    };
    // The pacer is a task of its own because waking the future that a runtime
    // blocks on takes a system call, and the pacer wakes for each request.
    runtime.block_on(async { tokio::spawn(work).await? })
}

/// Keeps a timer running that ends before any request's deadline. A deadline
/// that became the earliest timer of all would wake the event loop by a system
/// call, for each request.
async fn keep_a_timer() {
    let mut ticks = tokio::time::interval(Duration::from_millis(50));
    loop {
        ticks.tick().await;
    }
}

struct Pacer {
    share: Share,
    arrivals: Arrivals,
    timer: Timer,
    worker: Arc<Worker>,
    /// One for each target, taken in turns: a slow target does not send its
    /// share to the others, as real visitors would not know to go there.
    lanes: Vec<Arc<Lane>>,
}

/// What pacer and connections share.
struct Worker {
    traffic: Arc<Traffic>,
    deadline: Duration,
    /// Due and not yet over.
    outstanding: AtomicUsize,
    max_outstanding: usize,
    all_over: Notify,
}

#[derive(Default)]
struct Lane {
    waiting: Mutex<VecDeque<Due>>,
    arrived: Notify,
}

struct Due {
    ask: Ask,
    intended: Instant,
    /// None during the warm-up.
    record: Option<SharedRecord>,
}

impl Pacer {
    async fn start(plan: &Plan, traffic: &Arc<Traffic>, share: Share) -> io::Result<Self> {
        let worker = Arc::new(Worker {
            traffic: Arc::clone(traffic),
            deadline: plan.deadline,
            outstanding: AtomicUsize::new(0),
            max_outstanding: plan.max_outstanding.div_ceil(share.workers),
            all_over: Notify::new(),
        });
        let lane_count = share.workers * plan.targets.len();
        let mut lanes = Vec::new();
        for (place, target) in plan.targets.iter().enumerate() {
            let lane = Arc::new(Lane::default());
            // What does not divide evenly goes to the first lanes.
            let lane_index = place * share.workers + share.index;
            let extra = usize::from(lane_index < plan.connections % lane_count);
            let connections = plan.connections / lane_count + extra;
            connect(&worker, &lane, target, connections).await;
            lanes.push(lane);
        }
        Ok(Self {
            share,
            arrivals: plan.arrivals,
            timer: Timer::new()?,
            worker,
            lanes,
        })
    }

    /// Sends one step's load and waits until all of it is over, which the
    /// deadline of each request bounds.
    async fn run(&mut self, step: &Step) -> io::Result<()> {
        let Share { index, workers } = self.share;
        let mut rng = Rng::with_seed(step.seed ^ index as u64);
        let mut schedule = Schedule::new(self.arrivals, step.rate, index, workers, rng.fork());
        let end = step.warmup + step.duration;
        let mut turn = index;
        loop {
            let due = schedule.next_due();
            if due >= end {
                break;
            }
            let intended = step.start + due;
            self.timer.sleep_until(intended).await?;
            let ask = self.worker.traffic.draw(&mut rng);
            let record = (due >= step.warmup).then(|| Arc::clone(&step.record));
            if let Some(record) = &record {
                let lag = Instant::now().saturating_duration_since(intended);
                lock(record).due(ask.kind, lag);
            }
            turn = (turn + 1) % self.lanes.len();
            self.worker.admit(
                &self.lanes[turn],
                Due {
                    ask,
                    intended,
                    record,
                },
            );
        }
        // The step lasts its whole time, also when nothing is due at its end.
        self.timer.sleep_until(step.start + end).await?;
        self.worker.until_all_over().await;
        Ok(())
    }
}

/// Opens the connections of a lane and puts them to work. One that cannot be
/// made now is made by the first request that needs it, or fails it.
async fn connect(worker: &Arc<Worker>, lane: &Arc<Lane>, target: &Target, count: usize) {
    for _ in 0..count {
        let mut connection = Connection::new(target.clone());
        let _ = connection.connect().await;
        tokio::spawn(work_off(Arc::clone(worker), Arc::clone(lane), connection));
    }
}

async fn work_off(worker: Arc<Worker>, lane: Arc<Lane>, mut connection: Connection) {
    loop {
        let due = lane.next().await;
        let sample = worker.serve(&mut connection, &due).await;
        worker.over(&due, &sample);
    }
}

impl Lane {
    fn push(&self, due: Due) {
        self.waiting().push_back(due);
        self.arrived.notify_one();
    }

    async fn next(&self) -> Due {
        loop {
            if let Some(due) = self.waiting().pop_front() {
                return due;
            }
            self.arrived.notified().await;
        }
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<Due>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Worker {
    /// Queues what is due, unless too much waits already.
    fn admit(&self, lane: &Lane, due: Due) {
        let outstanding = self.outstanding.fetch_add(1, Ordering::Relaxed);
        if outstanding < self.max_outstanding {
            lane.push(due);
        } else {
            let sample = Sample {
                kind: due.ask.kind,
                intended: due.intended,
                sent: None,
                finished: Instant::now(),
                outcome: Err(Failure::Overflow),
            };
            self.over(&due, &sample);
        }
    }

    async fn serve(&self, connection: &mut Connection, due: &Due) -> Sample {
        let sent = Instant::now();
        let deadline = due.intended + self.deadline;
        let (sent, outcome) = if sent >= deadline {
            // Its visitor has left; to send it now would only slow the others.
            (None, Err(Failure::Timeout))
        } else {
            let outcome = self.exchange(connection, due.ask, deadline).await;
            (Some(sent), outcome)
        };
        Sample {
            kind: due.ask.kind,
            intended: due.intended,
            sent,
            finished: Instant::now(),
            outcome,
        }
    }

    async fn exchange(
        &self,
        connection: &mut Connection,
        ask: Ask,
        deadline: Instant,
    ) -> Result<(), Failure> {
        let request = self.traffic.request(ask, connection.target());
        let exchange = connection.exchange(request);
        if let Ok(answer) = tokio::time::timeout_at(deadline.into(), exchange).await {
            return self.traffic.judge(ask, &answer?);
        }
        connection.close();
        Err(Failure::Timeout)
    }

    fn over(&self, due: &Due, sample: &Sample) {
        if let Some(record) = &due.record {
            lock(record).finish(sample);
        }
        if self.outstanding.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.all_over.notify_one();
        }
    }

    async fn until_all_over(&self) {
        while self.outstanding.load(Ordering::Relaxed) > 0 {
            self.all_over.notified().await;
        }
    }
}
