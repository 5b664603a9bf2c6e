//! Gathers what many tasks ask for at the same time into few calls.
//!
//! Nothing waits while the line is free: an item that comes alone is sent alone,
//! at once. Only while calls are under way do further items gather, and they
//! leave together with the next.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{Instant, timeout_at};
use waypost_runtime::traces::{self, Context, Kind, Span};

/// Bounds of one batcher.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Items of one call.
    pub items: usize,
    /// Calls at the same time.
    pub calls: usize,
    /// Items that wait for a call. What comes beyond is refused.
    pub queue: usize,
    /// How long an item waits, for a call and for its answer.
    pub patience: Duration,
}

/// Why an item got no answer of its own.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error<E> {
    #[error("too many requests are waiting")]
    QueueFull,
    #[error("the process is ending")]
    Ending,
    /// The item may have been part of a call or not.
    #[error("the answer did not come in time")]
    Late,
    /// The call failed as a whole; every item of it hears the same.
    #[error("the call failed")]
    Call(E),
}

#[derive(Debug)]
struct Waiting<I, O, E> {
    item: I,
    deadline: Instant,
    answer: oneshot::Sender<Result<O, Error<E>>>,
    /// Of the item, if the request that asks is traced.
    trace: Option<Context>,
}

/// Cheap to clone. Its task ends with the last clone.
#[derive(Debug)]
pub struct Batcher<I, O, E> {
    queue: mpsc::Sender<Waiting<I, O, E>>,
    patience: Duration,
    name: &'static str,
}

impl<I, O, E> Clone for Batcher<I, O, E> {
    fn clone(&self) -> Self {
        Self {
            queue: self.queue.clone(),
            patience: self.patience,
            name: self.name,
        }
    }
}

impl<I, O, E> Batcher<I, O, E>
where
    I: Send + 'static,
    O: Send + 'static,
    E: Clone + Send + 'static,
{
    /// Starts the task that gathers. `call` answers one output per item, in order; traces
    /// call it by `name`.
    pub fn start<C, F>(name: &'static str, limits: Limits, call: C) -> Self
    where
        C: Fn(Vec<I>) -> F + Send + Sync + 'static,
        F: Future<Output = Result<Vec<O>, E>> + Send + 'static,
    {
        let (queue, waiting) = mpsc::channel(limits.queue);
        tokio::spawn(gather(limits, waiting, Arc::new(call)));
        Self {
            queue,
            patience: limits.patience,
            name,
        }
    }

    /// Items that wait for a call.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.queue.max_capacity() - self.queue.capacity()
    }

    /// Waits for the answer to one item.
    ///
    /// # Errors
    /// If the queue is full, or the call that carried the item failed.
    pub async fn ask(&self, item: I) -> Result<O, Error<E>> {
        let span = Span::child(Kind::Internal, self.name);
        let (answer, answered) = oneshot::channel();
        let waiting = Waiting {
            item,
            deadline: Instant::now() + self.patience,
            answer,
            trace: span.context(),
        };
        self.queue
            .try_send(waiting)
            .map_err(|refused| match refused {
                mpsc::error::TrySendError::Full(_) => Error::QueueFull,
                mpsc::error::TrySendError::Closed(_) => Error::Ending,
            })?;
        // No timer of its own, which would cost more than its share of the call: a call
        // ends by the deadline of the first of its items, and those are taken in turn. So
        // whoever is late finds a free line, and is told.
        answered.await.map_err(|_| Error::Ending)?
    }
}

async fn gather<I, O, E, C, F>(
    limits: Limits,
    mut waiting: mpsc::Receiver<Waiting<I, O, E>>,
    call: Arc<C>,
) where
    I: Send + 'static,
    O: Send + 'static,
    E: Clone + Send + 'static,
    C: Fn(Vec<I>) -> F + Send + Sync + 'static,
    F: Future<Output = Result<Vec<O>, E>> + Send + 'static,
{
    let line = Arc::new(Semaphore::new(limits.calls));
    loop {
        // First a free line, then the items: what comes meanwhile rides along.
        let Ok(permit) = Arc::clone(&line).acquire_owned().await else {
            return;
        };
        let mut batch = Vec::new();
        if waiting.recv_many(&mut batch, limits.items).await == 0 {
            return;
        }
        let now = Instant::now();
        let (mut items, mut answers, mut traced) = (Vec::new(), Vec::new(), Vec::new());
        let mut deadline = None;
        for waiting in batch {
            // Who has given up must not cost the shard anything.
            if waiting.answer.is_closed() {
                continue;
            }
            if waiting.deadline <= now {
                let _ = waiting.answer.send(Err(Error::Late));
                continue;
            }
            deadline.get_or_insert(waiting.deadline);
            items.push(waiting.item);
            answers.push(waiting.answer);
            traced.extend(waiting.trace);
        }
        let Some(deadline) = deadline else { continue };
        let call = Arc::clone(&call);
        let first = shared(&traced, items.len());
        let called = async move {
            let result = match timeout_at(deadline, call(items)).await {
                Ok(result) => result.map_err(Error::Call),
                Err(_) => Err(Error::Late),
            };
            // An asker may have given up meanwhile.
            match result {
                Ok(outputs) => {
                    for (output, answer) in outputs.into_iter().zip(answers) {
                        let _ = answer.send(Ok(output));
                    }
                }
                Err(error) => {
                    for answer in answers {
                        let _ = answer.send(Err(error.clone()));
                    }
                }
            }
            drop(permit);
        };
        tokio::spawn(traces::within(first, called));
    }
}

/// A traced request has a span of its own for the call that it shares. What the call does
/// is a part of the first one's, at which the others' point.
fn shared(traced: &[Context], items: usize) -> Option<Context> {
    for trace in traced {
        traces::set(trace, "waypost.batch.items", items as i64);
    }
    let (first, others) = traced.split_first()?;
    for other in others {
        traces::link(other, first);
    }
    Some(first.clone())
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[tokio::test]
    async fn items_gather_while_the_line_is_busy_and_get_their_own_answers() {
        let sizes = Arc::new(Mutex::new(Vec::new()));
        let gate = Arc::new(Semaphore::new(0));
        let (seen, open) = (Arc::clone(&sizes), Arc::clone(&gate));
        let limits = Limits {
            items: 8,
            calls: 1,
            queue: 16,
            patience: Duration::from_secs(60),
        };
        let batcher: Batcher<u32, u32, ()> =
            Batcher::start("double", limits, move |items: Vec<u32>| {
                seen.lock().unwrap().push(items.len());
                let open = Arc::clone(&open);
                async move {
                    open.acquire().await.unwrap().forget();
                    Ok(items.into_iter().map(|item| item * 2).collect())
                }
            });
        let mut tasks = tokio::task::JoinSet::new();
        let ask = |item: u32| {
            let batcher = batcher.clone();
            async move { (item, batcher.ask(item).await.unwrap()) }
        };
        tasks.spawn(ask(0));
        while sizes.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        for item in 1..=10 {
            tasks.spawn(ask(item));
        }
        while batcher.queue.capacity() > 6 {
            tokio::task::yield_now().await;
        }
        gate.add_permits(100);
        while let Some(done) = tasks.join_next().await {
            let (item, answer) = done.unwrap();
            assert_eq!(answer, item * 2);
        }
        assert_eq!(*sizes.lock().unwrap(), [1, 8, 2]);
    }

    #[tokio::test]
    async fn who_waits_too_long_is_told_so() {
        let limits = Limits {
            items: 1,
            calls: 1,
            queue: 4,
            patience: Duration::from_millis(10),
        };
        let batcher: Batcher<u32, u32, ()> = Batcher::start("never", limits, |_| {
            std::future::pending::<Result<Vec<u32>, ()>>()
        });
        let both = async { tokio::join!(batcher.ask(1), batcher.ask(2)) };
        // Far beyond the patience of either, for a machine that has no time.
        let (called, queued) = tokio::time::timeout(Duration::from_secs(20), both)
            .await
            .expect("in time");
        assert!(matches!(called, Err(Error::Late)));
        assert!(matches!(queued, Err(Error::Late)));
    }

    #[tokio::test]
    async fn a_full_queue_refuses_instead_of_growing() {
        let limits = Limits {
            items: 1,
            calls: 1,
            queue: 1,
            patience: Duration::from_secs(60),
        };
        let batcher: Batcher<u32, u32, ()> = Batcher::start("never", limits, |_| {
            std::future::pending::<Result<Vec<u32>, ()>>()
        });
        let mut refused = 0;
        let mut waiting = Vec::new();
        for item in 0..8 {
            let mut ask = Box::pin(batcher.ask(item));
            if let std::task::Poll::Ready(answer) = futures_util::poll!(&mut ask) {
                assert!(matches!(answer, Err(Error::QueueFull)));
                refused += 1;
            } else {
                waiting.push(ask);
            }
            tokio::task::yield_now().await;
        }
        assert!(refused >= 5, "{refused} refused");
    }
}
