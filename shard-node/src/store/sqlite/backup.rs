//! A file that no process serves from: a copy, or one that is to be served again.

use std::path::Path;

use futures_util::TryStreamExt as _;
use sqlx::sqlite::SqliteConnection;
use sqlx::{ConnectOptions as _, Connection as _};
use waypost_domain::Epoch;
use waypost_domain::signature::KeyRing;

use super::{SCHEMA, link_columns, options, rows};
use crate::store::{Error, columns};

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checked {
    /// Links, those that were deleted among them.
    pub links: u64,
    /// Links that are damaged or not signed with a key that is known: nobody can follow
    /// them, here or elsewhere.
    pub unsigned: u64,
}

const ALL: &str = concat!(
    "-- shard.check\nSELECT ",
    link_columns!(),
    " FROM links AS l"
);

const RAISE: &str = "\
-- shard.begin_epoch
UPDATE prefix_owner SET epoch = ?1 WHERE epoch < ?1";

/// Reads every link of a file and checks its signature.
///
/// # Errors
/// If the file cannot be read.
pub async fn check(path: &Path, key_ring: &KeyRing) -> Result<Checked, Error> {
    let mut connection = options(path).connect().await?;
    let checked = read_all(&mut connection, key_ring).await;
    connection.close().await?;
    checked
}

async fn read_all(connection: &mut SqliteConnection, key_ring: &KeyRing) -> Result<Checked, Error> {
    let mut checked = Checked {
        links: 0,
        unsigned: 0,
    };
    let mut found = sqlx::query(ALL).fetch(connection);
    while let Some(row) = found.try_next().await? {
        let slug: &str = sqlx::Row::try_get(&row, 1)?;
        checked.links += 1;
        let is_ours = columns::authentic(key_ring, slug, rows::link(&row)).is_some();
        checked.unsigned += u64::from(!is_ours);
    }
    Ok(checked)
}

/// Brings a file up to date and lets its prefixes begin an epoch, unless they are in a
/// later one: what is written then is newer than all that was written before.
///
/// # Errors
/// If the file cannot be written, or a later release made its schema.
pub async fn begin_epoch(path: &Path, epoch: Epoch) -> Result<(), Error> {
    let mut connection = options(path).connect().await?;
    SCHEMA.apply(&mut connection).await?;
    sqlx::query(RAISE)
        .bind(i64::from(epoch.get()))
        .execute(&mut connection)
        .await?;
    connection.close().await?;
    Ok(())
}
