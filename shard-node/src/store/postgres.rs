//! Links in Postgres, one database per shard.
//!
//! A write takes the shared ownership lock first, in the same round trip as its
//! BEGIN, and only then looks who owns the prefix: each statement has a snapshot
//! of its own, so that what it finds holds until the commit. Whoever moves a
//! prefix takes the lock exclusively.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions as _, Connection as _, Postgres, Row as _, Transaction};
use time::OffsetDateTime;
use waypost_domain::shard_map::ShardMap;
use waypost_domain::signature::KeyRing;
use waypost_domain::{Epoch, LinkKey, NewLink, Prefix, ShardId};
use waypost_runtime::database::Schema;

use super::columns::{self, link_columns, owner};
use super::rules;
use super::{
    Change, Claim, Claimed, Created, Cursor, Error, Expired, Exported, Imported, Lease, Leased,
    LinkStore, ListPlace, Listed, Place, Poll, Position, PrefixOwner, Purged, Purpose, Resolved,
    Session, Size, Transferred, Write, Written,
};

mod claims;
mod copy;
mod create;
mod expiry;
mod handover;
mod home;
mod list;
mod owners;
mod rows;
mod server;
mod sources;
mod transfer;
mod visits;
mod write;

pub use copy::{Digest, Kind, Page, Place as CopyPlace, Rows, Stretch};
pub use handover::{Change as OwnerChange, Holding, MAX_CHANGES, Refused};

const SCHEMA: Schema = Schema {
    table: "_sqlx_migrations",
    steps: &[
        (
            "links",
            include_str!("../../migrations/postgres/0001_links.sql"),
        ),
        (
            "life",
            include_str!("../../migrations/postgres/0002_life.sql"),
        ),
        (
            "takedowns",
            include_str!("../../migrations/postgres/0003_takedowns.sql"),
        ),
        (
            "handover",
            include_str!("../../migrations/postgres/0004_handover.sql"),
        ),
        (
            "home",
            include_str!("../../migrations/postgres/0005_home.sql"),
        ),
    ],
};

/// What the server allows each of our statements and transactions. A process that
/// stops halfway holds no lock longer than this.
const STATEMENT: Duration = Duration::from_secs(2);
const LOCK: Duration = Duration::from_millis(1_500);
const IDLE_IN_TRANSACTION: Duration = Duration::from_secs(5);

/// The longest that the leader of the relay may say nothing.
const RELAY_IDLE: Duration = Duration::from_secs(3);

/// Whether a row `b` of the outbox is about a prefix that this shard owns: of others'
/// its rows are copies, from before they moved away or on their way here.
macro_rules! is_ours {
    () => {
        "(SELECT o.state FROM prefix_owner AS o WHERE o.prefix = left(b.slug, 2)) = 'owned'"
    };
}

/// Advisory locks are named by two numbers; the first is ours, "Wp".
const BEGIN_WRITE: &str =
    "BEGIN; -- shard.begin_write\nSELECT pg_advisory_xact_lock_shared(22384, 1)";

/// A shard in a Postgres database. Cheap to clone.
#[derive(Debug, Clone)]
pub struct PostgresStore {
    role: Role,
    options: PgConnectOptions,
    shard: ShardId,
    key_ring: KeyRing,
}

/// What a server is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Primary,
    Replica,
}

impl PostgresStore {
    /// Knows how to reach a database; nothing is connected yet.
    #[must_use]
    pub fn new(options: PgConnectOptions, shard: ShardId, key_ring: KeyRing) -> Self {
        Self::of(Role::Primary, options, shard, key_ring)
    }

    /// Knows how to reach a standby of the database.
    #[must_use]
    pub fn replica(options: PgConnectOptions, shard: ShardId, key_ring: KeyRing) -> Self {
        Self::of(Role::Replica, options, shard, key_ring)
    }

    fn of(role: Role, options: PgConnectOptions, shard: ShardId, key_ring: KeyRing) -> Self {
        let millis = |time: Duration| time.as_millis().to_string();
        let options = options
            .options([
                ("lock_timeout", millis(LOCK)),
                (
                    "idle_in_transaction_session_timeout",
                    millis(IDLE_IN_TRANSACTION),
                ),
                // A peer behind a cut cable loses its locks within 8 s.
                ("tcp_keepalives_idle", "5".to_owned()),
                ("tcp_keepalives_interval", "1".to_owned()),
                ("tcp_keepalives_count", "3".to_owned()),
            ])
            .disable_statement_logging();
        Self {
            role,
            options,
            shard,
            key_ring,
        }
    }

    /// Options for the statements of requests. All of them look keys up by an index.
    /// A planner without statistics, or with those of an empty table, would hash
    /// the 3,844 prefixes or scan the links for every request instead.
    fn request_options(&self) -> PgConnectOptions {
        self.options.clone().options([
            ("statement_timeout", STATEMENT.as_millis().to_string()),
            ("enable_seqscan", "off".to_owned()),
            ("enable_hashjoin", "off".to_owned()),
            ("enable_mergejoin", "off".to_owned()),
            ("plan_cache_mode", "force_generic_plan".to_owned()),
            // Forbidden plans look expensive, and that is what JIT goes by.
            ("jit", "off".to_owned()),
        ])
    }
}

impl LinkStore for PostgresStore {
    type Session = PostgresSession;
    const SYSTEM: &'static str = "postgresql";

    async fn connect(&self, purpose: Purpose) -> Result<PostgresSession, Error> {
        let options = match purpose {
            // Who leads talks every 100 ms. A process that is frozen keeps its
            // connection, and with it the lock, unless Postgres ends it.
            // It does not wait for standbys: what it writes are marks, and one that is
            // lost costs another application. While no standby answers, it would hang
            // in its commit, lead no more and let nobody else.
            Purpose::Relay => self.request_options().options([
                ("idle_session_timeout", RELAY_IDLE.as_millis().to_string()),
                ("synchronous_commit", "off".to_owned()),
            ]),
            // Also at a standby that was promoted behind our back.
            Purpose::Read => {
                let read_only = [("default_transaction_read_only", "on")];
                self.request_options().options(read_only)
            }
            Purpose::Write => self.request_options(),
        };
        let mut connection = options.connect().await?;
        if self.role == Role::Primary {
            server::refuse_standby(&mut connection).await?;
        }
        if purpose == Purpose::Write {
            server::refuse_unconfirmed(&mut connection).await?;
        }
        Ok(PostgresSession {
            connection,
            shard: self.shard.clone(),
            key_ring: self.key_ring.clone(),
        })
    }

    async fn prepare(&self, map: &ShardMap) -> Result<(), Error> {
        let mut connection = SCHEMA.apply_to_postgres(&self.options).await?;
        let mut tx = connection
            .begin_with("BEGIN; -- shard.begin_seed\nSELECT pg_advisory_xact_lock(22384, 1)")
            .await?;
        let found: Option<String> = sqlx::query_scalar("-- shard.identity\nSELECT id FROM shard")
            .fetch_optional(&mut *tx)
            .await?;
        let this = &self.shard;
        let home = map.region(this).unwrap_or_default();
        match found {
            Some(found) if found == this.as_str() => {
                home::settle(&mut tx, home).await?;
                return Ok(tx.commit().await?);
            }
            Some(found) => {
                let expected = this.clone();
                return Err(Error::OtherShard { found, expected });
            }
            None => {}
        }
        sqlx::query("-- shard.claim\nINSERT INTO shard (id, home) VALUES ($1, $2)")
            .bind(this.as_str())
            .bind(home)
            .execute(&mut *tx)
            .await?;
        let prefixes: Vec<String> = Prefix::all().map(|prefix| prefix.to_string()).collect();
        let moved_to: Vec<Option<&str>> = Prefix::all()
            .map(|prefix| &map.owner(prefix).id)
            .map(|owner| (owner != this).then_some(owner.as_str()))
            .collect();
        sqlx::query(
            "-- shard.seed_ownership
             INSERT INTO prefix_owner (prefix, epoch, state, moved_to)
             SELECT s.prefix, 1, CASE WHEN s.moved_to IS NULL THEN 'owned' ELSE 'moved' END, s.moved_to
             FROM unnest($1::text[], $2::text[]) AS s(prefix, moved_to)",
        )
        .bind(prefixes)
        .bind(moved_to)
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        // So that the very first plans know how many prefixes there are.
        sqlx::query("-- shard.analyze\nANALYZE prefix_owner")
            .execute(&mut connection)
            .await?;
        Ok(())
    }
}

/// One connection.
#[derive(Debug)]
pub struct PostgresSession {
    connection: PgConnection,
    shard: ShardId,
    key_ring: KeyRing,
}

impl Session for PostgresSession {
    async fn create_batch(&mut self, links: &[NewLink]) -> Result<Vec<Created>, Error> {
        create::batch(self, links).await
    }

    async fn resolve_batch(&mut self, keys: &[LinkKey]) -> Result<Vec<Resolved>, Error> {
        let domains: Vec<i32> = keys.iter().map(rows::domain).collect();
        let slugs: Vec<&str> = keys.iter().map(|key| key.slug.as_str()).collect();
        let prefixes: Vec<&str> = keys
            .iter()
            .map(|key| rules::prefix_text(&key.slug))
            .collect();
        let found = sqlx::query(concat!(
            "-- shard.resolve\nSELECT ",
            link_columns!(),
            ", o.prefix, o.epoch, o.moved_to, k.at
             FROM unnest($1::int[], $2::text[], $3::text[])
                  WITH ORDINALITY AS k(domain, slug, prefix, at)
             JOIN prefix_owner AS o ON o.prefix = k.prefix
             LEFT JOIN links AS l ON l.domain = k.domain AND l.slug = k.slug"
        ))
        .bind(domains)
        .bind(slugs)
        .bind(prefixes)
        .fetch_all(&mut self.connection)
        .await?;
        let mut outcomes = vec![None; keys.len()];
        for row in found {
            let (owner, moved) = self.owner(&row, 20)?;
            let outcome = if moved {
                Resolved::Moved(owner)
            } else if let Some(slug) = row.try_get::<Option<&str>, _>(1)? {
                let link = columns::whole(slug, rows::link(&row));
                link.map_or(Resolved::Damaged, |link| Resolved::Found(Box::new(link)))
            } else {
                Resolved::Absent
            };
            let at = usize::try_from(row.try_get::<i64, _>(23)?).unwrap_or_default();
            if let Some(slot) = at.checked_sub(1).and_then(|at| outcomes.get_mut(at)) {
                *slot = Some(outcome);
            }
        }
        // A prefix without an owner is no absence: nobody could tell.
        let complete: Option<Vec<Resolved>> = outcomes.into_iter().collect();
        complete.ok_or(Error::Damaged("prefix_owner"))
    }

    async fn write(&mut self, write: &Write) -> Result<Written, Error> {
        write::apply(self, write).await
    }

    async fn list(
        &mut self,
        tenant: &str,
        after: Option<&ListPlace>,
        limit: u32,
    ) -> Result<Vec<Listed>, Error> {
        list::page(&mut self.connection, tenant, after, limit).await
    }

    async fn lease_visits(&mut self, leases: &[Lease]) -> Result<Vec<Leased>, Error> {
        visits::lease(self, leases).await
    }

    async fn claim(&mut self, claim: &Claim) -> Result<Claimed, Error> {
        claims::claim(self, claim).await
    }

    async fn forget_claims(&mut self, age: Duration, limit: u32) -> Result<u64, Error> {
        claims::forget(&mut self.connection, age, limit).await
    }

    async fn purge(
        &mut self,
        age: Duration,
        after: Option<&Expired>,
        limit: u32,
    ) -> Result<Purged, Error> {
        expiry::purge(self, age, after, limit).await
    }

    async fn export(&mut self, after: Option<&LinkKey>, limit: u32) -> Result<Exported, Error> {
        transfer::export(self, after, limit).await
    }

    async fn import(&mut self, rows: &[Transferred]) -> Result<Vec<Imported>, Error> {
        transfer::import(self, rows).await
    }

    async fn position(&mut self) -> Result<Position, Error> {
        server::position(&mut self.connection).await
    }

    async fn size(&mut self) -> Result<Size, Error> {
        server::size(&mut self.connection).await
    }

    async fn ownership(&mut self) -> Result<Vec<PrefixOwner>, Error> {
        let found = sqlx::query(
            "-- shard.ownership
             SELECT o.prefix, o.epoch, o.moved_to FROM prefix_owner AS o ORDER BY o.prefix",
        )
        .fetch_all(&mut self.connection)
        .await?;
        found.iter().map(|row| Ok(self.owner(row, 0)?.0)).collect()
    }

    async fn try_lead(&mut self) -> Result<bool, Error> {
        let leads =
            sqlx::query_scalar("-- shard.relay_lead\nSELECT pg_try_advisory_lock(22384, 2)")
                .fetch_one(&mut self.connection)
                .await?;
        Ok(leads)
    }

    async fn begin_epoch(&mut self, epoch: Epoch) -> Result<(), Error> {
        // Who writes meanwhile has read the epoch before, and writes no lower version.
        sqlx::query(
            "-- shard.begin_epoch
             WITH begun AS (
                UPDATE prefix_owner SET epoch = $1 WHERE epoch < $1 AND state = 'owned'
             )
             UPDATE shard SET ownership = ownership + 1",
        )
        .bind(epoch.get().cast_signed())
        .execute(&mut self.connection)
        .await?;
        Ok(())
    }

    async fn poll(&mut self, cursor: &Cursor, limit: u32) -> Result<Poll, Error> {
        // Read before the rows: whatever is below the oldest running transaction is
        // visible to the next statement.
        let head: (i64, OffsetDateTime, Option<OffsetDateTime>, i64) = sqlx::query_as(concat!(
            "-- shard.relay_head
             SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint, clock_timestamp(),
                    (SELECT b.created_at FROM outbox AS b
                     WHERE b.applied_at IS NULL AND ",
            is_ours!(),
            " ORDER BY b.position, b.id LIMIT 1),
                    (SELECT s.ownership FROM shard AS s)",
        ))
        .fetch_one(&mut self.connection)
        .await?;
        let (floor, clock, oldest, ownership) = head;
        let told: Vec<i64> = cursor.told().map(|place| place.id).collect();
        let found = sqlx::query(concat!(
            "-- shard.relay_changes\nSELECT ",
            link_columns!(),
            ", b.position, b.id FROM outbox AS b
               JOIN links AS l ON l.domain = b.domain AND l.slug = b.slug
               WHERE b.applied_at IS NULL AND b.position >= $1
                 AND b.id <> ALL($2::bigint[]) AND ",
            is_ours!(),
            " ORDER BY b.position, b.id LIMIT $3"
        ))
        .bind(cursor.floor())
        .bind(told)
        .bind(i64::from(limit))
        .fetch_all(&mut self.connection)
        .await?;
        let changes = found.iter().map(change).collect::<Result<Vec<_>, _>>()?;
        Ok(Poll {
            clock: rows::timestamp(clock)?,
            oldest: oldest.map(rows::timestamp).transpose()?,
            floor: if changes.len() < limit as usize {
                floor
            } else {
                cursor.floor()
            },
            ownership,
            changes,
        })
    }

    async fn oldest(&mut self, limit: u32) -> Result<Vec<Change>, Error> {
        let found = sqlx::query(concat!(
            "-- shard.relay_oldest\nSELECT ",
            link_columns!(),
            ", b.position, b.id FROM outbox AS b
               JOIN links AS l ON l.domain = b.domain AND l.slug = b.slug
               WHERE b.applied_at IS NULL AND ",
            is_ours!(),
            " ORDER BY b.position, b.id LIMIT $1"
        ))
        .bind(i64::from(limit))
        .fetch_all(&mut self.connection)
        .await?;
        found.iter().map(change).collect()
    }

    async fn acknowledge(&mut self, places: &[Place]) -> Result<(), Error> {
        let ids: Vec<i64> = places.iter().map(|place| place.id).collect();
        sqlx::query(
            "-- shard.relay_acknowledge
             UPDATE outbox SET applied_at = clock_timestamp() WHERE id = ANY($1::bigint[])",
        )
        .bind(ids)
        .execute(&mut self.connection)
        .await?;
        Ok(())
    }

    async fn reopen(&mut self, limit: u32) -> Result<Vec<Place>, Error> {
        let reopened: Vec<(i64, i64)> = sqlx::query_as(
            "-- shard.relay_reopen
             UPDATE outbox SET applied_at = NULL WHERE id IN (
                SELECT b.id FROM outbox AS b WHERE b.applied_at IS NOT NULL
                ORDER BY b.applied_at DESC, b.id DESC LIMIT $1)
             RETURNING position, id",
        )
        .bind(i64::from(limit))
        .fetch_all(&mut self.connection)
        .await?;
        let place = |(position, id)| Place { position, id };
        Ok(reopened.into_iter().map(place).collect())
    }

    async fn forget(&mut self, age: Duration, limit: u32) -> Result<u64, Error> {
        let gone = sqlx::query(
            "-- shard.relay_forget
             DELETE FROM outbox WHERE id IN (
                SELECT b.id FROM outbox AS b
                WHERE b.applied_at <= now() - $1 * interval '1 second'
                ORDER BY b.applied_at, b.id LIMIT $2)",
        )
        .bind(age.as_secs_f64())
        .bind(i64::from(limit))
        .execute(&mut self.connection)
        .await?;
        Ok(gone.rows_affected())
    }
}

impl PostgresSession {
    /// Begins a transaction that holds the ownership of all prefixes still. A
    /// failure leaves the connection in an unknown state, so it is given up.
    async fn begin_write(&mut self) -> Result<Transaction<'_, Postgres>, Error> {
        self.connection
            .begin_with(BEGIN_WRITE)
            .await
            .map_err(Error::Unavailable)
    }

    fn owner(
        &self,
        row: &sqlx::postgres::PgRow,
        first: usize,
    ) -> Result<(PrefixOwner, bool), Error> {
        owner_at(&self.shard, row, first)
    }
}

/// Reads the columns prefix, epoch and moved_to, from the `first` on.
fn owner_at(
    shard: &ShardId,
    row: &sqlx::postgres::PgRow,
    first: usize,
) -> Result<(PrefixOwner, bool), Error> {
    let epoch: i32 = row.try_get(first + 1)?;
    let moved_to = row.try_get(first + 2)?;
    owner(shard, row.try_get(first)?, epoch.into(), moved_to)
}

fn change(row: &sqlx::postgres::PgRow) -> Result<Change, Error> {
    let place = Place {
        position: row.try_get(20)?,
        id: row.try_get(21)?,
    };
    let link = columns::whole(row.try_get(1)?, rows::link(row));
    let link = link.map(Box::new);
    Ok(Change { place, link })
}
