//! Threads that serve connections, each with a runtime of its own.
//!
//! A connection stays on the thread that it was given to, and what its requests touch
//! stays in one core's cache. Threads that share a runtime take each other's tasks and
//! wake each other for it.

#[cfg(feature = "cluster")]
mod per_thread;

use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;

#[cfg(feature = "cluster")]
pub(crate) use per_thread::PerThread;

thread_local! {
    /// Which of them this thread is.
    static INDEX: Cell<Option<usize>> = const { Cell::new(None) };
}

/// Ends its threads, and what they serve, when dropped.
#[derive(Debug)]
pub(crate) struct Workers {
    workers: Vec<Worker>,
    end: CancellationToken,
}

#[derive(Debug)]
struct Worker {
    runtime: Handle,
    /// Tasks that it has to serve.
    tasks: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Workers {
    /// Starts so many threads, at least one.
    ///
    /// # Errors
    /// If the system refuses a thread or what its runtime needs.
    pub(crate) fn start(count: usize) -> io::Result<Self> {
        let mut workers = Self {
            workers: Vec::new(),
            end: CancellationToken::new(),
        };
        for index in 0..count.max(1) {
            let worker = Worker::start(index, workers.end.clone())?;
            workers.workers.push(worker);
        }
        Ok(workers)
    }

    /// Has a task served by the thread that has the fewest.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let least = self
            .workers
            .iter()
            .min_by_key(|worker| worker.tasks.load(Ordering::Relaxed))
            .expect("there is at least one thread");
        let counted = Counted::up(&least.tasks);
        least.runtime.spawn(async move {
            let _counted = counted;
            task.await;
        });
    }
}

impl Worker {
    fn start(index: usize, end: CancellationToken) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let thread = std::thread::Builder::new()
            .name(format!("http-{index}"))
            .spawn(move || {
                INDEX.set(Some(index));
                runtime.block_on(end.cancelled());
            })?;
        Ok(Self {
            runtime: handle,
            tasks: Arc::default(),
            thread: Some(thread),
        })
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.end.cancel();
        for worker in &mut self.workers {
            if let Some(thread) = worker.thread.take() {
                // Its panic was reported when it happened.
                let _ = thread.join();
            }
        }
    }
}

/// Counts a task for as long as it is there, however it ends.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn up(tasks: &Arc<AtomicUsize>) -> Self {
        tasks.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(tasks))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::mpsc;
    use std::thread::ThreadId;

    use super::*;

    #[test]
    fn tasks_are_spread_evenly_and_places_are_given_back() {
        let workers = Workers::start(3).unwrap();
        let release = CancellationToken::new();
        for _ in 0..2 {
            let (sender, threads) = mpsc::channel();
            for _ in 0..9 {
                let (sender, release) = (sender.clone(), release.clone());
                workers.spawn(async move {
                    sender.send(std::thread::current().id()).unwrap();
                    release.cancelled().await;
                });
            }
            drop(sender);
            let mut tasks: HashMap<ThreadId, usize> = HashMap::new();
            for thread in threads.iter().take(9) {
                *tasks.entry(thread).or_default() += 1;
            }
            assert_eq!(tasks.len(), 3);
            assert!(tasks.values().all(|count| count % 3 == 0), "{tasks:?}");
        }
        release.cancel();
        let left = |worker: &Worker| worker.tasks.load(Ordering::Relaxed) > 0;
        while workers.workers.iter().any(left) {
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_task_that_never_ends_does_not_keep_the_threads() {
        let workers = Workers::start(1).unwrap();
        let (sender, began) = mpsc::channel();
        workers.spawn(async move {
            sender.send(()).unwrap();
            std::future::pending::<()>().await;
        });
        began.recv().unwrap();
        drop(workers);
    }
}
