//! A message of the log: decoded, checked, and added up.

use std::collections::BTreeMap;

use prost::Message as _;
use uuid::Uuid;
use waypost_domain::Timestamp;
use waypost_domain::click::PARTITIONS;
use waypost_proto::click::Batch;

use crate::bots::is_bot;

/// The format that this release reads.
const FORMAT: u32 = 1;

/// Longer names are none that a gateway gives itself or a tenant has.
const MAX_NAME: usize = 256;

const HOUR_MS: i64 = 3_600_000;

/// Why a message is no batch that can be counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    #[error("the message is no batch of clicks")]
    Encoding,
    #[error("the batch is of an unknown format")]
    Format,
    #[error("the batch's identity is out of range")]
    Identity,
    #[error("a click's link, tenant or time is out of range")]
    Click,
}

/// Decodes a batch and checks that it can be stored, so that no database ever
/// refuses it.
///
/// # Errors
/// Says what is wrong with it.
pub fn decode(message: &[u8]) -> Result<Batch, Invalid> {
    let batch = Batch::decode(message).map_err(|_| Invalid::Encoding)?;
    check(&batch)?;
    Ok(batch)
}

/// See [`decode`].
pub(crate) fn check(batch: &Batch) -> Result<(), Invalid> {
    if batch.format != FORMAT {
        return Err(Invalid::Format);
    }
    let stored = |number: u64| i64::try_from(number).is_ok_and(|n| n < i64::MAX);
    // Postgres has no NUL in texts.
    let name = |text: &str| text.len() <= MAX_NAME && !text.contains('\0');
    if !stored(batch.boot)
        || !stored(batch.sequence)
        || batch.partition >= PARTITIONS
        || batch.gateway.is_empty()
        || !name(&batch.gateway)
    {
        return Err(Invalid::Identity);
    }
    let click = batch.clicks.iter().all(|click| {
        click.link_id.len() == 16
            && name(&click.tenant)
            && Timestamp::from_millis(click.time_ms).is_some()
    });
    if click { Ok(()) } else { Err(Invalid::Click) }
}

/// What batches add to the rollups.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// By link and hour since the Unix epoch, in this order, in which rows are
    /// locked.
    pub(crate) hours: BTreeMap<(Uuid, i64), Counts>,
    pub(crate) clicks: u64,
    /// The newest click of each partition, in milliseconds.
    pub(crate) newest: BTreeMap<u32, i64>,
}

#[derive(Debug)]
pub(crate) struct Counts {
    pub(crate) tenant: String,
    pub(crate) clicks: i64,
    pub(crate) bots: i64,
}

impl Tally {
    pub(crate) fn add(&mut self, batch: &Batch) {
        for click in &batch.clicks {
            let link = Uuid::from_slice(&click.link_id).unwrap_or_default();
            let hour = click.time_ms / HOUR_MS;
            let counts = self.hours.entry((link, hour)).or_insert_with(|| Counts {
                tenant: click.tenant.clone(),
                clicks: 0,
                bots: 0,
            });
            counts.clicks += 1;
            // A prefetch is a program's doing, until somebody clicks.
            counts.bots += i64::from(click.prefetch || is_bot(&click.user_agent));
            self.clicks += 1;
            let newest = self.newest.entry(batch.partition).or_insert(click.time_ms);
            *newest = click.time_ms.max(*newest);
        }
    }
}
