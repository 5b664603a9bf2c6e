//! `Watch`: the ownership of all prefixes, then changes and heartbeats.

use std::pin::Pin;

use futures_util::{Stream, stream};
use prometheus::{IntCounter, IntGauge};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::time::timeout;
use tonic::Status;
use waypost_proto::link::{self as message, watch_event};

use super::Service;
use crate::changes::Event;
use crate::lane::{DEADLINE, Refusal, cause};
use crate::store::{LinkStore, Purpose, Session as _};

type Events = Pin<Box<dyn Stream<Item = Result<message::WatchEvent, Status>> + Send>>;

impl<S: LinkStore> Service<S> {
    pub(super) async fn stream(&self) -> Result<Events, Status> {
        // Subscribed first: a change between the two is told, if need be twice.
        let events = self
            .changes
            .subscribe()
            .ok_or_else(|| Status::failed_precondition("not the relay of this shard"))?;
        let ownership = message::WatchEvent {
            event: Some(watch_event::Event::Ownership(self.ownership().await?)),
        };
        let watcher = Watcher::new(
            events,
            self.metrics.watchers.clone(),
            self.metrics.watchers_lagged.clone(),
        );
        Ok(Box::pin(stream::unfold(
            (Some(ownership), Some(watcher)),
            |(first, watcher)| async {
                let mut watcher = watcher?;
                if let Some(first) = first {
                    return Some((Ok(first), (None, Some(watcher))));
                }
                match watcher.events.recv().await {
                    Ok(event) => Some((Ok(event.into()), (None, Some(watcher)))),
                    Err(RecvError::Lagged(_)) => {
                        watcher.lagged.inc();
                        let status = Status::aborted("the reader fell behind the stream");
                        Some((Err(status), (None, None)))
                    }
                    // The term is over: the gateway asks the next node.
                    Err(RecvError::Closed) => None,
                }
            },
        )))
    }

    async fn ownership(&self) -> Result<message::Ownership, Status> {
        let read = async {
            let mut session = self.store.connect(Purpose::Read).await?;
            session.ownership().await
        };
        let owners = match timeout(DEADLINE, read).await {
            Ok(Ok(owners)) => owners,
            Ok(Err(error)) => {
                tracing::warn!(operation = "ownership", error = %cause(&error), "database refused");
                return Err(Refusal::Unavailable.into());
            }
            Err(_) => return Err(Refusal::Deadline.into()),
        };
        Ok(message::Ownership {
            prefixes: owners.iter().map(Into::into).collect(),
        })
    }
}

/// One open stream, counted while it is.
struct Watcher {
    events: broadcast::Receiver<Event>,
    watchers: IntGauge,
    lagged: IntCounter,
}

impl Watcher {
    fn new(events: broadcast::Receiver<Event>, watchers: IntGauge, lagged: IntCounter) -> Self {
        watchers.inc();
        Self {
            events,
            watchers,
            lagged,
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.watchers.dec();
    }
}
