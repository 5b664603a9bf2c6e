//! A message of the log: decoded and checked.

use prost::Message as _;
use waypost_domain::Timestamp;
use waypost_domain::click::PARTITIONS;
use waypost_proto::click::Batch;

/// The format that this release reads.
const FORMAT: u32 = 1;

/// Longer names are none that a gateway gives itself or a tenant has.
const MAX_NAME: usize = 256;

/// No slug is longer.
const MAX_SLUG: usize = 64;

/// Why a message is no batch that can be counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    #[error("the message is no batch of clicks")]
    Encoding,
    #[error("the batch is of an unknown format")]
    Format,
    #[error("the batch's identity is out of range")]
    Identity,
    #[error("a click's link, slug, tenant or time is out of range")]
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
            && click.slug.len() <= MAX_SLUG
            && name(&click.tenant)
            && Timestamp::from_millis(click.time_ms).is_some()
    });
    if click { Ok(()) } else { Err(Invalid::Click) }
}
