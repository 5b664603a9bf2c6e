//! What another instance has counted, taken over and read back.

use tonic::Status;
use waypost_domain::click::PARTITIONS;
use waypost_proto::analytics::rollup::Row;
use waypost_proto::analytics::{Rollup, Rollups};

/// Rows of one request: some 4 MB if each had the largest sketch and the longest counts.
const MAX_ROWS: usize = 256;

/// What is added to the partitions of rows that are taken over, so that they stand beside
/// what is counted here, and a repetition meets its own.
const TAKEN_OVER: i32 = 10_000;

/// Bytes of what is packed in a row: the largest is below 64 KiB.
const MAX_PACKED: usize = 128 << 10;

/// Checks rows and moves them to where those that are taken over stand.
pub(crate) fn taken_over(request: Rollups) -> Result<Vec<Row>, Status> {
    if request.rollups.len() > MAX_ROWS {
        return Err(Status::invalid_argument("a request has at most 256 rows"));
    }
    let rows = request.rollups.into_iter().map(|rollup| {
        let mut row = rollup.row.filter(is_whole)?;
        if let Some(partition) = partition(&mut row) {
            let is_known = (0..PARTITIONS.cast_signed()).contains(partition);
            *partition += TAKEN_OVER;
            return is_known.then_some(row);
        }
        Some(row)
    });
    rows.collect::<Option<_>>()
        .ok_or_else(|| Status::invalid_argument("a row is none that was counted"))
}

/// Moves a row back.
pub(crate) fn given_back(row: Option<Row>) -> Rollup {
    let back = |mut row| {
        if let Some(partition) = partition(&mut row) {
            *partition -= TAKEN_OVER;
        }
        row
    };
    Rollup { row: row.map(back) }
}

fn is_whole(row: &Row) -> bool {
    let (link_id, counted, packed): (Option<&[u8]>, _, [&[u8]; 2]) = match row {
        Row::LinkDay(row) => (
            Some(&row.link_id),
            [row.clicks, row.bots, row.visitors],
            [&row.counts, &row.sketch],
        ),
        Row::TenantDay(row) => (None, [row.clicks, row.bots, 0], [&row.counts, &[]]),
        Row::LinkHour(row) => (Some(&row.link_id), [row.clicks, row.bots, 0], [&[], &[]]),
    };
    link_id.is_none_or(|id| id.len() == 16)
        && counted.iter().all(|count| *count >= 0)
        && packed.iter().all(|bytes| bytes.len() <= MAX_PACKED)
}

/// The partition of a row that has one.
fn partition(row: &mut Row) -> Option<&mut i32> {
    match row {
        Row::LinkDay(row) => Some(&mut row.partition),
        Row::TenantDay(row) => Some(&mut row.partition),
        Row::LinkHour(_) => None,
    }
}
