//! The click log, as the gateway sees it: something that takes batches.

use bytes::Bytes;

/// One batch, encoded as `waypost.click.v1.Batch`.
#[derive(Debug, Clone)]
pub struct Payload {
    /// Where it goes; the same as in the batch.
    pub partition: u32,
    pub batch: Bytes,
}

/// Where batches end up: Kafka, or the analytics of the same process.
pub trait ClickLog: Send + Sync + 'static {
    /// Returns when the batch is durable in the log. It may be there twice
    /// afterwards, or have arrived in spite of an error: batches have identities.
    /// The sender tries again after an error, for as long as it takes, unless it is
    /// [`PublishError::Refused`] several times in a row.
    fn publish(&self, payload: Payload) -> impl Future<Output = Result<(), PublishError>> + Send;

    /// What traces call it, if being published is something else than being counted.
    fn system(&self) -> Option<&'static str> {
        None
    }
}

/// Why a batch is, as far as one can tell, not in the log.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// It may go well another time: the log is away, or its rights or its topic have
    /// to be put right.
    #[error("publish a batch of clicks")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The log takes others, and not this one: it is too large for it, say.
    #[error("publish a batch of clicks that the log does not take")]
    Refused(#[source] Box<dyn std::error::Error + Send + Sync>),
}
