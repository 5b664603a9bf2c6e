//! Traced clicks on their way to the log, so that a trace shows when they got there.
//!
//! A batch comes back from the disk as it was encoded. So what was traced is remembered
//! here, and found in the batch again: its span stands in it byte by byte.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use memchr::memmem;
use waypost_runtime::traces::{self, Kind, Place, Span};

/// Clicks that are remembered. Beyond it the oldest are sent without a span: while the
/// log is away nobody needs to be told of each that waits.
const MAX: usize = 100;

/// Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Traced(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// What traces call the log; none: being counted is all that happens there.
    system: Option<&'static str>,
    /// Looked at for each batch, of which nearly none has a traced click.
    is_empty: AtomicBool,
    /// With the partition of each.
    clicks: Mutex<VecDeque<(u32, Place)>>,
}

impl Traced {
    pub(super) fn new(system: Option<&'static str>) -> Self {
        Self(Arc::new(Inner {
            system,
            is_empty: AtomicBool::new(true),
            clicks: Mutex::default(),
        }))
    }

    /// Remembers a click before the batch that it is in can be sent.
    pub(super) fn remember(&self, partition: u32, click: Place) {
        if self.0.system.is_none() {
            return;
        }
        let mut clicks = self.clicks();
        if clicks.len() == MAX {
            clicks.pop_front();
        }
        clicks.push_back((partition, click));
        self.0.is_empty.store(false, Ordering::Release);
    }

    /// A span for each traced click of a batch that is about to be sent.
    pub(super) fn publish(&self, partition: u32, batch: &[u8]) -> Vec<Span> {
        let Some(system) = self.0.system else {
            return Vec::new();
        };
        if self.0.is_empty.load(Ordering::Acquire) {
            return Vec::new();
        }
        let mut found = Vec::new();
        let mut clicks = self.clicks();
        clicks.retain(|(of, click)| {
            let is_here = *of == partition && memmem::find(batch, click).is_some();
            if is_here {
                found.push(*click);
            }
            !is_here
        });
        self.0.is_empty.store(clicks.is_empty(), Ordering::Release);
        drop(clicks);
        let spans = found.iter().filter_map(|click| {
            let span = Span::under(&traces::at(click)?, Kind::Producer, "publish click");
            span.set("messaging.system", system);
            let partition = partition.to_string();
            span.set("messaging.destination.partition.id", partition);
            Some(span)
        });
        spans.collect()
    }

    fn clicks(&self) -> MutexGuard<'_, VecDeque<(u32, Place)>> {
        self.0.clicks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_click_is_found_in_its_batch_alone_and_once() {
        let traced = Traced::new(Some("kafka"));
        let (first, second): (Place, Place) = ([7; 24], [8; 24]);
        traced.remember(3, first);
        traced.remember(3, second);
        let batch = [&[1, 2], &first[..], &[3]].concat();
        assert_eq!(traced.publish(4, &batch).len(), 0, "another partition's");
        assert_eq!(traced.publish(3, b"nothing of it").len(), 0);
        assert_eq!(traced.publish(3, &batch).len(), 1);
        assert_eq!(traced.publish(3, &batch).len(), 0, "it was sent");
        assert_eq!(traced.publish(3, &second).len(), 1);
        assert!(traced.0.is_empty.load(Ordering::Relaxed));
    }

    #[test]
    fn while_the_log_is_away_only_so_many_are_remembered() {
        let traced = Traced::new(Some("kafka"));
        for n in 1..=MAX as u8 + 5 {
            traced.remember(0, [n; 24]);
        }
        assert_eq!(traced.clicks().len(), MAX);
        assert_eq!(traced.publish(0, &[5; 24]).len(), 0);
        assert_eq!(traced.publish(0, &[6; 24]).len(), 1);
        let unnamed = Traced::new(None);
        unnamed.remember(0, [1; 24]);
        assert_eq!(unnamed.publish(0, &[1; 24]).len(), 0);
    }
}
