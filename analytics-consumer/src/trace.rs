//! Where the trace of a click ends, in the transaction that counts it, and what
//! statistics ask of the database.
//!
//! A transaction counts the clicks of many requests. Each traced one has a span of its
//! own for it, in its own trace, so that whoever looks at a request finds all of it there.

use waypost_runtime::traces::{self, Kind, Span};

use crate::store::{Applied, Error, Portion};

/// Clicks of one transaction that have a span: no more are of use to anybody, and should
/// every request be traced, counting goes before telling of it.
const MAX_SPANS: usize = 100;

/// The spans of a transaction, which last until it is done.
pub(crate) struct Counting(Vec<Span>);

impl Counting {
    pub(crate) fn begin(portion: &Portion) -> Self {
        let clicks = portion.batches.iter().flat_map(|batch| &batch.clicks);
        let traced = clicks.filter_map(|click| traces::at(&click.trace));
        let spans = traced.take(MAX_SPANS).map(|click| {
            let span = Span::under(&click, Kind::Consumer, "count click");
            span.set("waypost.batches", portion.batches.len() as i64);
            if let Some(stretch) = &portion.span {
                span.set("messaging.system", "kafka");
                span.set("messaging.destination.name", stretch.topic.clone());
                let partition = stretch.partition.to_string();
                span.set("messaging.destination.partition.id", partition);
            }
            span
        });
        Self(spans.collect())
    }

    /// Batches may be among them that were counted before.
    pub(crate) fn counted(self, applied: &Applied) {
        for span in &self.0 {
            span.set("waypost.duplicates", applied.duplicates as i64);
        }
    }

    pub(crate) fn failed(self, why: &'static str) {
        self.0.iter().for_each(|span| span.failed(why));
    }
}

/// Asks the database, which is a part of the request that runs if that is traced.
pub(crate) async fn asking<T>(
    system: &'static str,
    operation: &'static str,
    answer: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let span = Span::child(Kind::Client, operation);
    span.set("db.system.name", system);
    span.set("db.operation.name", operation);
    let answered = answer.await;
    if answered.is_err() {
        span.failed("database");
    }
    answered
}
