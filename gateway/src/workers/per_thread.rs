//! What each serving thread has for itself.

use super::{INDEX, Worker, Workers};

/// One for each serving thread, kept by its runtime, and one for all other threads:
/// who is answered by a task of the same thread wakes no other for it.
#[derive(Debug)]
pub(crate) struct PerThread<T> {
    own: Box<[T]>,
    others: T,
}

impl<T> PerThread<T> {
    /// This thread's.
    pub(crate) fn here(&self) -> &T {
        INDEX
            .get()
            .and_then(|index| self.own.get(index))
            .unwrap_or(&self.others)
    }
}

impl Workers {
    /// Makes another of these on the runtime of each thread.
    pub(crate) fn each<T>(&self, others: T, another: impl Fn(&T) -> T) -> PerThread<T> {
        let own = |worker: &Worker| {
            let _on_its_runtime = worker.runtime.enter();
            another(&others)
        };
        PerThread {
            own: self.workers.iter().map(own).collect(),
            others,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, mpsc};

    use tokio::runtime::Handle;

    use super::*;

    #[test]
    fn each_thread_finds_what_was_made_on_its_own_runtime() {
        let workers = Workers::start(3).unwrap();
        let all = Arc::new(workers.each(None, |_| Some(Handle::current().id())));
        assert_eq!(all.here(), &None, "no serving thread");
        let (sender, found) = mpsc::channel();
        for _ in 0..3 {
            let (all, sender) = (Arc::clone(&all), sender.clone());
            workers.spawn(async move {
                let is_own = *all.here() == Some(Handle::current().id());
                sender.send(is_own).unwrap();
                std::future::pending::<()>().await;
            });
        }
        let found: Vec<bool> = found.iter().take(3).collect();
        assert_eq!(found, [true; 3]);
    }
}
