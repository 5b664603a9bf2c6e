//! Where the relay tells changes and the open streams hear them.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, broadcast};
use waypost_proto::link as message;

/// Events that a subscriber may be behind: seconds of edits. One that is further
/// behind starts anew, which costs its gateway no more than a cleared cache.
const BUFFER: usize = 4_096;

/// What every subscriber hears.
#[derive(Debug, Clone)]
pub enum Event {
    Changed(Arc<message::Link>),
    Heartbeat(message::Heartbeat),
    /// Of the prefixes whose owner or epoch has changed.
    Ownership(Arc<message::Ownership>),
}

impl From<Event> for message::WatchEvent {
    fn from(event: Event) -> Self {
        use message::watch_event::Event as Kind;
        let event = match event {
            Event::Changed(link) => Kind::Changed(Arc::unwrap_or_clone(link)),
            Event::Heartbeat(heartbeat) => Kind::Heartbeat(heartbeat),
            Event::Ownership(ownership) => Kind::Ownership(Arc::unwrap_or_clone(ownership)),
        };
        Self { event: Some(event) }
    }
}

/// Joins the relay with the service. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Changes(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    term: Mutex<Option<broadcast::Sender<Event>>>,
    written: Notify,
}

impl Changes {
    /// Begins a term of relaying: subscribers are let in until it ends.
    #[must_use]
    pub fn begin(&self) -> Term {
        let (sender, _) = broadcast::channel(BUFFER);
        *self.term() = Some(sender.clone());
        Term {
            changes: self.clone(),
            sender,
        }
    }

    /// Hears all events from now on; `None` while this process does not relay.
    #[must_use]
    pub fn subscribe(&self) -> Option<broadcast::Receiver<Event>> {
        self.term().as_ref().map(broadcast::Sender::subscribe)
    }

    /// Says that a change was committed here, so that it need not wait to be found.
    pub fn wrote(&self) {
        self.0.written.notify_one();
    }

    /// Waits for the next [`Changes::wrote`].
    pub async fn written(&self) {
        self.0.written.notified().await;
    }

    fn term(&self) -> std::sync::MutexGuard<'_, Option<broadcast::Sender<Event>>> {
        self.0.term.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A term of relaying; when it is dropped all streams end.
#[derive(Debug)]
pub struct Term {
    changes: Changes,
    sender: broadcast::Sender<Event>,
}

impl Term {
    /// Tells an event; that nobody listens is fine.
    pub fn tell(&self, event: Event) {
        let _ = self.sender.send(event);
    }
}

impl Drop for Term {
    fn drop(&mut self) {
        *self.changes.term() = None;
    }
}
