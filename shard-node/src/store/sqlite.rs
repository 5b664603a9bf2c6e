//! Links in one SQLite file: the store of the all-in-one binary. One connection
//! writes; every reader has its own and is never blocked by it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Connection as _, Row as _};
use tokio::sync::{Mutex, MutexGuard};
use waypost_domain::shard_map::ShardMap;
use waypost_domain::signature::KeyRing;
use waypost_domain::{Epoch, Link, LinkKey, NewLink, Prefix, ShardId, Timestamp};
use waypost_runtime::database::Schema;

use super::columns::{self, link_columns, owner};
use super::rules::{self, OnExisting, OnWrite};
use super::{
    Change, Claim, Claimed, Created, Cursor, Error, Expired, Exported, Imported, Lease, Leased,
    LinkStore, ListPlace, Listed, Place, Poll, Position, PrefixOwner, Purged, Purpose, Resolved,
    Session, Size, Transferred, Write, Written,
};

mod backup;
mod claims;
mod expiry;
mod list;
mod rows;
mod sources;
mod transfer;
mod visits;

pub use backup::{Checked, begin_epoch, check};

const SCHEMA: Schema = Schema {
    table: "_sqlx_migrations",
    steps: &[
        (
            "links",
            include_str!("../../migrations/sqlite/0001_links.sql"),
        ),
        (
            "life",
            include_str!("../../migrations/sqlite/0002_life.sql"),
        ),
        (
            "takedowns",
            include_str!("../../migrations/sqlite/0003_takedowns.sql"),
        ),
    ],
};

/// How long a connection waits for another's lock. Only a second process on the
/// same file, such as a backup, ever holds one.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// A shard in a SQLite file. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SqliteStore(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    shard: ShardId,
    key_ring: KeyRing,
    writer: Mutex<SqliteConnection>,
}

impl SqliteStore {
    /// Opens a file, which is made if it is not there.
    ///
    /// # Errors
    /// If the file cannot be opened.
    pub async fn open(path: &Path, shard: ShardId, key_ring: KeyRing) -> Result<Self, Error> {
        let writer = options(path).create_if_missing(true).connect().await?;
        Ok(Self(Arc::new(Inner {
            path: path.to_owned(),
            shard,
            key_ring,
            writer: Mutex::new(writer),
        })))
    }
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        // What is acknowledged has reached the disk.
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(BUSY_TIMEOUT)
        .disable_statement_logging()
}

impl LinkStore for SqliteStore {
    type Session = SqliteSession;
    const SYSTEM: &'static str = "sqlite";

    async fn connect(&self, purpose: Purpose) -> Result<SqliteSession, Error> {
        let reader = match purpose {
            Purpose::Read | Purpose::Relay => {
                Some(options(&self.0.path).read_only(true).connect().await?)
            }
            Purpose::Write => None,
        };
        Ok(SqliteSession {
            store: self.clone(),
            reader,
        })
    }

    async fn prepare(&self, map: &ShardMap) -> Result<(), Error> {
        let mut writer = self.0.writer.lock().await;
        SCHEMA.apply(&mut *writer).await?;
        let mut tx = writer.begin_with("BEGIN IMMEDIATE").await?;
        let found: Option<String> = sqlx::query_scalar("-- shard.identity\nSELECT id FROM shard")
            .fetch_optional(&mut *tx)
            .await?;
        let this = &self.0.shard;
        match found {
            Some(found) if found == this.as_str() => return Ok(()),
            Some(found) => {
                let expected = this.clone();
                return Err(Error::OtherShard { found, expected });
            }
            None => {}
        }
        sqlx::query("-- shard.claim\nINSERT INTO shard (one, id) VALUES (1, ?1)")
            .bind(this.as_str())
            .execute(&mut *tx)
            .await?;
        for prefix in Prefix::all() {
            let owner = &map.owner(prefix).id;
            let moved_to = (owner != this).then_some(owner.as_str());
            sqlx::query(
                "-- shard.seed_ownership
                 INSERT INTO prefix_owner (prefix, epoch, state, moved_to)
                 VALUES (?1, 1, CASE WHEN ?2 IS NULL THEN 'owned' ELSE 'moved' END, ?2)",
            )
            .bind(prefix.to_string())
            .bind(moved_to)
            .execute(&mut *tx)
            .await?;
        }
        tx.commit().await?;
        Ok(())
    }
}

/// A share in the connection that writes, and perhaps one to read with.
#[derive(Debug)]
pub struct SqliteSession {
    store: SqliteStore,
    reader: Option<SqliteConnection>,
}

impl SqliteSession {
    /// Where to read: apart from the writer if this session can.
    async fn reader(&mut self) -> Reader<'_> {
        match &mut self.reader {
            Some(own) => Reader::Own(own),
            None => Reader::Writer(self.store.0.writer.lock().await),
        }
    }
}

enum Reader<'a> {
    Own(&'a mut SqliteConnection),
    Writer(MutexGuard<'a, SqliteConnection>),
}

impl Reader<'_> {
    fn connection(&mut self) -> &mut SqliteConnection {
        match self {
            Self::Own(own) => own,
            Self::Writer(writer) => writer,
        }
    }
}

impl Session for SqliteSession {
    async fn create_batch(&mut self, links: &[NewLink]) -> Result<Vec<Created>, Error> {
        let mut writer = self.store.0.writer.lock().await;
        let mut tx = writer.begin_with("BEGIN IMMEDIATE").await?;
        let now = Timestamp::from(SystemTime::now());
        let mut outcomes = Vec::with_capacity(links.len());
        for new in links {
            outcomes.push(match self.store.create(&mut tx, new, now).await {
                // The statement was undone, and the transaction goes on.
                Err(Error::Data(error)) => {
                    tracing::warn!(%error, "link refused by the database");
                    Created::Refused
                }
                outcome => outcome?,
            });
        }
        tx.commit().await?;
        Ok(outcomes)
    }

    async fn resolve_batch(&mut self, keys: &[LinkKey]) -> Result<Vec<Resolved>, Error> {
        let asked: Vec<_> = keys
            .iter()
            .map(|key| (key.domain.0, key.slug.as_str()))
            .collect();
        let asked = serde_json::to_string(&asked).expect("numbers and texts are JSON");
        let shard = self.store.0.shard.clone();
        let rows = sqlx::query(concat!(
            "-- shard.resolve\nSELECT ",
            link_columns!(),
            ", o.prefix, o.epoch, o.moved_to, k.key
             FROM json_each(?1) AS k
             JOIN prefix_owner AS o ON o.prefix = substr(json_extract(k.value, '$[1]'), 1, 2)
             LEFT JOIN links AS l ON l.domain = json_extract(k.value, '$[0]')
                                 AND l.slug = json_extract(k.value, '$[1]')"
        ))
        .bind(asked)
        .fetch_all(self.reader().await.connection())
        .await?;
        let mut outcomes = vec![Resolved::Absent; keys.len()];
        for row in rows {
            let prefix: &str = row.try_get(20)?;
            let (owner, moved) = owner(&shard, prefix, row.try_get(21)?, row.try_get(22)?)?;
            let outcome = if moved {
                Resolved::Moved(owner)
            } else if let Some(slug) = row.try_get::<Option<&str>, _>(1)? {
                let link = columns::whole(slug, rows::link(&row));
                link.map_or(Resolved::Damaged, |link| Resolved::Found(Box::new(link)))
            } else {
                Resolved::Absent
            };
            let at = row.try_get::<i64, _>(23)?;
            if let Some(slot) = usize::try_from(at).ok().and_then(|at| outcomes.get_mut(at)) {
                *slot = outcome;
            }
        }
        Ok(outcomes)
    }

    async fn write(&mut self, write: &Write) -> Result<Written, Error> {
        let mut writer = self.store.0.writer.lock().await;
        let mut tx = writer.begin_with("BEGIN IMMEDIATE").await?;
        let now = Timestamp::from(SystemTime::now());
        let (owner, moved) = self.store.owner_of(&mut tx, &write.key).await?;
        if moved {
            return Ok(Written::Moved(owner));
        }
        let Some((existing, memory)) = rows::stored(&mut tx, &write.key).await? else {
            return Ok(Written::Absent);
        };
        let (key_ring, slug) = (&self.store.0.key_ring, write.key.slug.as_str());
        let Some(existing) = columns::authentic(key_ring, slug, existing) else {
            return Ok(Written::Damaged);
        };
        let mut link = match rules::on_write(&existing, memory, write, owner.epoch, now) {
            OnWrite::Write(link) => link,
            refused => return Ok(refused.answer(existing)),
        };
        link.signature = self.store.0.key_ring.sign(&link);
        match rows::replace(&mut tx, &existing, &link, Some(write.change_id), now).await {
            Err(Error::Data(error)) => {
                tracing::warn!(%error, "change refused by the database");
                return Ok(Written::Refused);
            }
            outcome => outcome?,
        }
        tx.commit().await?;
        Ok(Written::Link(link))
    }

    async fn list(
        &mut self,
        tenant: &str,
        after: Option<&ListPlace>,
        limit: u32,
    ) -> Result<Vec<Listed>, Error> {
        let mut reader = self.reader().await;
        list::page(reader.connection(), tenant, after, limit).await
    }

    async fn lease_visits(&mut self, leases: &[Lease]) -> Result<Vec<Leased>, Error> {
        let mut writer = self.store.0.writer.lock().await;
        let mut tx = writer.begin_with("BEGIN IMMEDIATE").await?;
        let mut outcomes = Vec::with_capacity(leases.len());
        for lease in leases {
            outcomes.push(visits::lease(&self.store, &mut tx, lease).await?);
        }
        tx.commit().await?;
        Ok(outcomes)
    }

    async fn claim(&mut self, claim: &Claim) -> Result<Claimed, Error> {
        let mut writer = self.store.0.writer.lock().await;
        let mut tx = writer.begin_with("BEGIN IMMEDIATE").await?;
        let now = Timestamp::from(SystemTime::now());
        let claimed = claims::claim(&self.store, &mut tx, claim, now).await?;
        tx.commit().await?;
        Ok(claimed)
    }

    async fn forget_claims(&mut self, age: Duration, limit: u32) -> Result<u64, Error> {
        let mut writer = self.store.0.writer.lock().await;
        claims::forget(&mut writer, age, limit, SystemTime::now().into()).await
    }

    async fn purge(
        &mut self,
        age: Duration,
        after: Option<&Expired>,
        limit: u32,
    ) -> Result<Purged, Error> {
        let mut writer = self.store.0.writer.lock().await;
        let mut tx = writer.begin_with("BEGIN IMMEDIATE").await?;
        let now = Timestamp::from(SystemTime::now());
        let purged = expiry::purge(&self.store, &mut tx, age, after, limit, now).await?;
        tx.commit().await?;
        Ok(purged)
    }

    async fn export(&mut self, after: Option<&LinkKey>, limit: u32) -> Result<Exported, Error> {
        let key_ring = self.store.0.key_ring.clone();
        let mut reader = self.reader().await;
        transfer::export(reader.connection(), &key_ring, after, limit).await
    }

    async fn import(&mut self, rows: &[Transferred]) -> Result<Vec<Imported>, Error> {
        let mut writer = self.store.0.writer.lock().await;
        let mut tx = writer.begin_with("BEGIN IMMEDIATE").await?;
        let now = Timestamp::from(SystemTime::now());
        let mut outcomes = Vec::with_capacity(rows.len());
        for row in rows {
            outcomes.push(
                match transfer::import(&self.store, &mut tx, row, now).await {
                    // The statement was undone, and the transaction goes on.
                    Err(Error::Data(error)) => {
                        tracing::warn!(%error, "link refused by the database");
                        Imported::Refused
                    }
                    outcome => outcome?,
                },
            );
        }
        tx.commit().await?;
        Ok(outcomes)
    }

    async fn begin_epoch(&mut self, epoch: Epoch) -> Result<(), Error> {
        let mut writer = self.store.0.writer.lock().await;
        sqlx::query(
            "-- shard.begin_epoch_here
             UPDATE prefix_owner SET epoch = ?1 WHERE epoch < ?1 AND state = 'owned'",
        )
        .bind(i64::from(epoch.get()))
        .execute(&mut *writer)
        .await?;
        Ok(())
    }

    async fn ownership(&mut self) -> Result<Vec<PrefixOwner>, Error> {
        let rows = sqlx::query(
            "-- shard.ownership
             SELECT prefix, epoch, moved_to FROM prefix_owner ORDER BY prefix",
        )
        .fetch_all(self.reader().await.connection())
        .await?;
        rows.iter()
            .map(|row| {
                let (prefix, epoch): (&str, i64) = (row.try_get(0)?, row.try_get(1)?);
                Ok(owner(&self.store.0.shard, prefix, epoch, row.try_get(2)?)?.0)
            })
            .collect()
    }

    /// A file has no standbys that could be elsewhere.
    /// The file has no estimate of the links, and counting them reads all of it.
    async fn size(&mut self) -> Result<Size, Error> {
        let mut reader = self.reader().await;
        let (bytes, prefixes, epoch) = sqlx::query_as(
            "-- shard.size
             SELECT (SELECT page_count FROM pragma_page_count)
                        * (SELECT page_size FROM pragma_page_size),
                    (SELECT count(*) FROM prefix_owner WHERE state = 'owned'),
                    (SELECT coalesce(max(epoch), 0) FROM prefix_owner)",
        )
        .fetch_one(reader.connection())
        .await?;
        Ok(Size {
            links: None,
            bytes,
            prefixes,
            coming: 0,
            epoch,
        })
    }

    async fn position(&mut self) -> Result<Position, Error> {
        Ok(Position {
            log: 0,
            at: 0,
            is_standby: false,
        })
    }

    /// A file has one process, and that process one relay.
    async fn try_lead(&mut self) -> Result<bool, Error> {
        Ok(true)
    }

    async fn poll(&mut self, cursor: &Cursor, limit: u32) -> Result<Poll, Error> {
        let mut reader = self.reader().await;
        let (last, oldest): (i64, Option<i64>) = sqlx::query_as(
            "-- shard.relay_head
             SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'outbox'), 0),
                    (SELECT created_at FROM outbox WHERE applied_at IS NULL ORDER BY id LIMIT 1)",
        )
        .fetch_one(reader.connection())
        .await?;
        // One connection writes, so that ids become visible in their order. What was
        // committed since the statement above is given now and, unless it is told,
        // again.
        let changes = rows::changes(reader.connection(), cursor.floor(), limit).await?;
        let floor = match changes.last() {
            Some(last) if changes.len() == limit as usize => last.place.id + 1,
            _ => last + 1,
        };
        Ok(Poll {
            // One shard has all prefixes, and keeps them.
            ownership: 0,
            clock: Timestamp::from(SystemTime::now()),
            oldest: oldest.and_then(Timestamp::from_millis),
            floor,
            changes,
        })
    }

    async fn oldest(&mut self, limit: u32) -> Result<Vec<Change>, Error> {
        let mut reader = self.reader().await;
        rows::changes(reader.connection(), 0, limit).await
    }

    async fn acknowledge(&mut self, places: &[Place]) -> Result<(), Error> {
        let ids: Vec<i64> = places.iter().map(|place| place.id).collect();
        let mut writer = self.store.0.writer.lock().await;
        sqlx::query(
            "-- shard.relay_acknowledge
             UPDATE outbox SET applied_at = ?1 WHERE id IN (SELECT value FROM json_each(?2))",
        )
        .bind(Timestamp::from(SystemTime::now()).millis())
        .bind(serde_json::to_string(&ids).expect("numbers are JSON"))
        .execute(&mut *writer)
        .await?;
        Ok(())
    }

    async fn reopen(&mut self, limit: u32) -> Result<Vec<Place>, Error> {
        let mut writer = self.store.0.writer.lock().await;
        let reopened: Vec<i64> = sqlx::query_scalar(
            "-- shard.relay_reopen
             UPDATE outbox SET applied_at = NULL WHERE id IN (
                SELECT id FROM outbox WHERE applied_at IS NOT NULL
                ORDER BY applied_at DESC, id DESC LIMIT ?1)
             RETURNING id",
        )
        .bind(limit)
        .fetch_all(&mut *writer)
        .await?;
        let place = |id| Place { position: id, id };
        Ok(reopened.into_iter().map(place).collect())
    }

    async fn forget(&mut self, age: Duration, limit: u32) -> Result<u64, Error> {
        let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
        let now = Timestamp::from(SystemTime::now()).millis();
        let mut writer = self.store.0.writer.lock().await;
        let gone = sqlx::query(
            "-- shard.relay_forget
             DELETE FROM outbox WHERE id IN (
                SELECT id FROM outbox WHERE applied_at <= ?1 ORDER BY applied_at, id LIMIT ?2)",
        )
        .bind(now.saturating_sub(age))
        .bind(limit)
        .execute(&mut *writer)
        .await?;
        Ok(gone.rows_affected())
    }
}

impl SqliteStore {
    async fn create(
        &self,
        tx: &mut SqliteConnection,
        new: &NewLink,
        now: Timestamp,
    ) -> Result<Created, Error> {
        let (owner, moved) = self.owner_of(tx, &new.key).await?;
        if moved {
            return Ok(Created::Moved(owner));
        }
        if let Some(source) = rules::sought(new) {
            let sources = sources::look_up(tx, source.id, &self.0.key_ring, now).await?;
            if let Some(answer) = sources.answer(new) {
                return Ok(answer);
            }
        }
        let mut link = rules::first_life(new, owner.epoch, now);
        link.signature = self.0.key_ring.sign(&link);
        if rows::insert(tx, &link).await? {
            return Ok(stored(link));
        }
        let Some((existing, _)) = rows::stored(tx, &new.key).await? else {
            return Ok(Created::Conflict);
        };
        let slug = new.key.slug.as_str();
        let Some(existing) = columns::whole(slug, existing) else {
            return Ok(Created::Damaged);
        };
        match rules::on_existing(&existing, new, owner.epoch, now) {
            OnExisting::Repeat => Ok(stored(existing)),
            OnExisting::Conflict => Ok(Created::Conflict),
            OnExisting::Ended => Ok(Created::Ended),
            OnExisting::Reused => Ok(Created::Reused),
            OnExisting::Recreate(mut link) => {
                if columns::authentic(&self.0.key_ring, slug, Ok(existing.clone())).is_none() {
                    return Ok(Created::Damaged);
                }
                link.signature = self.0.key_ring.sign(&link);
                rows::replace(tx, &existing, &link, None, now).await?;
                Ok(Created::Stored {
                    link,
                    replaced: true,
                })
            }
        }
    }

    async fn owner_of(
        &self,
        tx: &mut SqliteConnection,
        key: &LinkKey,
    ) -> Result<(PrefixOwner, bool), Error> {
        let row = sqlx::query(
            "-- shard.owner_of
             SELECT prefix, epoch, moved_to FROM prefix_owner WHERE prefix = ?1",
        )
        .bind(rules::prefix_text(&key.slug))
        .fetch_one(tx)
        .await?;
        let (prefix, epoch): (&str, i64) = (row.try_get(0)?, row.try_get(1)?);
        owner(&self.0.shard, prefix, epoch, row.try_get(2)?)
    }
}

fn stored(link: Link) -> Created {
    Created::Stored {
        link: Box::new(link),
        replaced: false,
    }
}
