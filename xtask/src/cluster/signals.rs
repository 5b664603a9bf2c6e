//! The signals that end a cluster, taken in by a thread that waits for them.

use nix::sys::signal::{SigSet, Signal};

use crate::Error;

pub(crate) struct Signals(SigSet);

impl Signals {
    /// Blocks them in this thread and in those that it starts from now on. (A child
    /// process begins with none blocked: the standard library sees to that.)
    pub(crate) fn block() -> Result<Self, Error> {
        let set = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]);
        set.thread_block()
            .map_err(|error| Error::Step(format!("signals cannot be blocked: {error}")))?;
        Ok(Self(set))
    }

    /// Returns when one has arrived.
    pub(crate) fn wait(&self) {
        // It fails only for a set that is not valid, and ours is.
        let _ = self.0.wait();
    }
}
