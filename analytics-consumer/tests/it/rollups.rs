//! One suite that every store of rollups passes.

use std::sync::Arc;
use std::time::Duration;

use tonic::Request;
use uuid::Uuid;
use waypost_analytics_consumer::Analytics;
use waypost_analytics_consumer::store::{Applied, DeadLetter, Error, Portion, RollupStore, Span};
use waypost_proto::analytics::analytics_service_server::AnalyticsService as _;
use waypost_proto::analytics::{LinkStatsRequest, LinkStatsResponse};
use waypost_proto::click::{Batch, Click};

const HOUR_MS: i64 = 3_600_000;

/// A database of one test.
pub(crate) trait Database {
    type Store: RollupStore + Clone;
    async fn create() -> Self;
    async fn open(&self) -> Self::Store;
    /// As if so much time had passed.
    async fn age_everything_by(&self, age: Duration);
    async fn damage_counts_of(&self, link: Uuid);
    /// As if each of so many days had been like the first, with so many clicks.
    async fn repeat_day_of(&self, link: Uuid, days: i32, clicks: i64);
    async fn two_numbers(&self, query: &'static str) -> (i64, i64);
}

macro_rules! suite {
    ($name:ident, $database:ty: $($test:ident),* $(,)?) => {
        mod $name {
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $test() {
                    super::$test(&<$database>::create().await).await;
                }
            )*
        }
    };
}

pub(crate) use suite;

macro_rules! suites {
    ($($test:ident),* $(,)?) => {
        #[cfg(feature = "postgres")]
        suite!(postgres, crate::rollups::on_postgres::Database: $($test),*);
        #[cfg(feature = "sqlite")]
        suite!(sqlite, crate::rollups::on_sqlite::Database: $($test),*);
    };
}

pub(crate) use suites;

suites!(
    clicks_are_counted_per_link_and_bots_apart,
    a_batch_that_comes_again_is_not_counted_again,
    of_two_consumers_of_a_stretch_one_counts_it,
    a_stretch_that_does_not_go_on_from_the_stored_offset_changes_nothing,
    dead_letters_are_kept_and_the_offset_moves_on,
);

pub(crate) fn link(n: u8) -> Uuid {
    Uuid::from_u128(u128::from(n))
}

pub(crate) fn click(link: Uuid, time_ms: i64, user_agent: &str) -> Click {
    Click {
        time_ms,
        slug: "abcdefgh".to_owned(),
        link_id: link.as_bytes().to_vec(),
        tenant: "acme".to_owned(),
        status: 302,
        user_agent: user_agent.to_owned(),
        ..Click::default()
    }
}

pub(crate) fn batch(boot: u64, partition: u32, sequence: u64, clicks: Vec<Click>) -> Batch {
    Batch {
        format: 1,
        gateway: "gateway-1".to_owned(),
        boot,
        partition,
        sequence,
        clicks,
    }
}

pub(crate) fn span(partition: i32, expected: Option<i64>, next: i64) -> Span {
    Span {
        topic: "clicks".to_owned(),
        partition,
        expected,
        next,
    }
}

pub(crate) fn portion(span: Option<Span>, batches: &[Batch]) -> Portion {
    Portion {
        span,
        batches: batches.to_vec(),
        dead: Vec::new(),
    }
}

pub(crate) async fn asked<S: RollupStore + Clone>(
    store: &S,
    request: LinkStatsRequest,
) -> LinkStatsResponse {
    let service = Analytics::new(Arc::new(store.clone()), crate::metrics());
    let answer = service.link_stats(Request::new(request)).await;
    answer.unwrap().into_inner()
}

fn all_of(link: Uuid) -> LinkStatsRequest {
    LinkStatsRequest {
        link_id: link.as_bytes().to_vec(),
        ..LinkStatsRequest::default()
    }
}

async fn counts<S: RollupStore + Clone>(store: &S, link: Uuid) -> (u64, u64) {
    let stats = asked(store, all_of(link)).await;
    (stats.clicks, stats.bots)
}

async fn clicks_are_counted_per_link_and_bots_apart(database: &impl Database) {
    let store = database.open().await;
    let firefox = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0";
    let prefetch = Click {
        prefetch: true,
        ..click(link(1), 7, firefox)
    };
    let first = batch(
        1,
        3,
        0,
        vec![
            click(link(1), 5, firefox),
            click(link(1), 3 * HOUR_MS, firefox),
            click(link(1), 6, "curl/8.5.0"),
            click(link(2), 9, firefox),
            prefetch,
        ],
    );
    let applied = store
        .apply(&portion(Some(span(3, None, 1)), &[first]))
        .await
        .unwrap();
    let expected = Applied {
        clicks: 5,
        // Two links and a tenant.
        rows: 3,
        newest_ms: Some(3 * HOUR_MS),
        ..Applied::default()
    };
    assert_eq!(applied, expected);
    assert_eq!(counts(&store, link(1)).await, (4, 2));
    assert_eq!(counts(&store, link(2)).await, (1, 0));
    assert_eq!(counts(&store, link(3)).await, (0, 0));
    let late = batch(1, 3, 1, vec![click(link(1), 1, firefox)]);
    let late = portion(Some(span(3, Some(1), 2)), &[late]);
    store.apply(&late).await.unwrap();
    let stats = asked(&store, all_of(link(1))).await;
    assert_eq!((stats.clicks, stats.counted_up_to_ms), (5, 3 * HOUR_MS));
    assert_eq!(store.next_offset("clicks", 3).await.unwrap(), Some(2));
    assert_eq!(store.next_offset("clicks", 4).await.unwrap(), None);
}

async fn a_batch_that_comes_again_is_not_counted_again(database: &impl Database) {
    let store = database.open().await;
    let one = |sequence| batch(1, 0, sequence, vec![click(link(1), 1, "x")]);
    // Within a portion, in a later one, after a gap, and after a restart.
    store
        .apply(&portion(None, &[one(0), one(0), one(3)]))
        .await
        .unwrap();
    let again = store
        .apply(&portion(None, &[one(3), one(0)]))
        .await
        .unwrap();
    assert_eq!((again.clicks, again.duplicates), (0, 2));
    let store = database.open().await;
    let gap = store
        .apply(&portion(None, &[one(2), one(1), one(2)]))
        .await
        .unwrap();
    assert_eq!((gap.clicks, gap.duplicates), (2, 1));
    // Another boot and another partition count from zero again.
    let others = [batch(2, 0, 0, vec![click(link(1), 1, "x")]), {
        batch(1, 1, 0, vec![click(link(1), 1, "x")])
    }];
    store.apply(&portion(None, &others)).await.unwrap();
    assert_eq!(counts(&store, link(1)).await.0, 6);
}

async fn of_two_consumers_of_a_stretch_one_counts_it(database: &impl Database) {
    let stores = [database.open().await, database.open().await];
    for round in 0..10_i64 {
        let expected = (round > 0).then_some(round);
        // Even if the identities differ: the offset alone keeps the second out.
        let stretch = |boot| {
            let batches = [batch(
                boot,
                0,
                round.cast_unsigned(),
                vec![click(link(1), 1, "x")],
            )];
            portion(Some(span(0, expected, round + 1)), &batches)
        };
        let mut racers = tokio::task::JoinSet::new();
        for (boot, store) in (1..).zip(stores.clone()) {
            let stretch = stretch(boot);
            racers.spawn(async move { store.apply(&stretch).await });
        }
        let outcomes = racers.join_all().await;
        assert_eq!(outcomes.iter().filter(|o| o.is_ok()).count(), 1);
        assert!(
            outcomes
                .iter()
                .all(|o| matches!(o, Ok(_) | Err(Error::Fenced)))
        );
    }
    assert_eq!(counts(&stores[0], link(1)).await.0, 10);
}

async fn a_stretch_that_does_not_go_on_from_the_stored_offset_changes_nothing(
    database: &impl Database,
) {
    let store = database.open().await;
    let one = |sequence| [batch(1, 0, sequence, vec![click(link(1), 1, "x")])];
    store
        .apply(&portion(Some(span(0, None, 10)), &one(0)))
        .await
        .unwrap();
    for expected in [None, Some(9), Some(11)] {
        let stale = portion(Some(span(0, expected, 12)), &one(1));
        assert!(matches!(store.apply(&stale).await, Err(Error::Fenced)));
    }
    assert_eq!(counts(&store, link(1)).await.0, 1);
    assert_eq!(store.next_offset("clicks", 0).await.unwrap(), Some(10));
    // The log may begin anew: the offset goes back, the counts do not.
    let anew = portion(Some(span(0, Some(10), 2)), &[one(0), one(1)].concat());
    assert_eq!(store.apply(&anew).await.unwrap().clicks, 1);
    assert_eq!(store.next_offset("clicks", 0).await.unwrap(), Some(2));
}

async fn dead_letters_are_kept_and_the_offset_moves_on(database: &impl Database) {
    let store = database.open().await;
    let dead = Portion {
        span: Some(span(0, None, 1)),
        dead: vec![DeadLetter {
            offset: 0,
            reason: "the message is no batch of clicks".to_owned(),
            payload: vec![0, 255, 0],
        }],
        ..Portion::default()
    };
    assert_eq!(store.apply(&dead).await.unwrap().dead_letters, 1);
    assert_eq!(store.next_offset("clicks", 0).await.unwrap(), Some(1));
}

#[cfg(feature = "postgres")]
pub(crate) mod on_postgres {
    use std::time::Duration;

    use sqlx::PgPool;
    use uuid::Uuid;
    use waypost_analytics_consumer::store::PostgresRollups;
    use waypost_testbed::Postgres;

    pub(crate) struct Database {
        pub(crate) url: String,
    }

    impl super::Database for Database {
        type Store = PostgresRollups;

        async fn create() -> Self {
            let url = tokio::task::spawn_blocking(|| {
                let server = Postgres::shared().unwrap();
                server.fresh_database().unwrap()
            });
            Self {
                url: url.await.unwrap(),
            }
        }

        async fn open(&self) -> PostgresRollups {
            let store = PostgresRollups::new(PgPool::connect(&self.url).await.unwrap());
            store.migrate().await.unwrap();
            store
        }

        async fn age_everything_by(&self, age: Duration) {
            let pool = PgPool::connect(&self.url).await.unwrap();
            for statement in [
                "UPDATE producer_state SET updated_at = updated_at - make_interval(secs => $1)",
                "UPDATE dead_letter SET received_at = received_at - make_interval(secs => $1)",
            ] {
                let aged = sqlx::query(statement).bind(age.as_secs_f64());
                aged.execute(&pool).await.unwrap();
            }
        }

        async fn damage_counts_of(&self, link: Uuid) {
            let pool = PgPool::connect(&self.url).await.unwrap();
            let damaged = sqlx::query("UPDATE link_day SET counts = '\\x09' WHERE link_id = $1");
            damaged.bind(link).execute(&pool).await.unwrap();
        }

        async fn repeat_day_of(&self, link: Uuid, days: i32, clicks: i64) {
            let pool = PgPool::connect(&self.url).await.unwrap();
            for statement in [
                "INSERT INTO link_day SELECT link_id, d, partition, tenant, clicks, bots, visitors,
                 counts, sketch FROM link_day, generate_series(1, $2 - 1) AS d WHERE link_id = $1",
                "UPDATE link_day SET clicks = $2 WHERE link_id = $1",
            ] {
                let number = if statement.starts_with("INSERT") {
                    days.into()
                } else {
                    clicks
                };
                let statement = statement.replace("$2", &number.to_string());
                let repeated = sqlx::query(sqlx::AssertSqlSafe(statement)).bind(link);
                repeated.execute(&pool).await.unwrap();
            }
        }

        async fn two_numbers(&self, query: &'static str) -> (i64, i64) {
            let pool = PgPool::connect(&self.url).await.unwrap();
            let query = query.replace(", 0 FROM", ", 0::bigint FROM");
            let query = query.replace("max(length(payload))", "max(length(payload))::bigint");
            sqlx::query_as(sqlx::AssertSqlSafe(query))
                .fetch_one(&pool)
                .await
                .unwrap()
        }
    }
}

#[cfg(feature = "sqlite")]
pub(crate) mod on_sqlite {
    use std::time::Duration;

    use sqlx::SqlitePool;
    use sqlx::sqlite::SqliteConnectOptions;
    use uuid::Uuid;
    use waypost_analytics_consumer::store::SqliteRollups;

    pub(crate) struct Database {
        folder: tempfile::TempDir,
    }

    impl super::Database for Database {
        type Store = SqliteRollups;

        async fn create() -> Self {
            let folder = tempfile::tempdir().unwrap();
            Self { folder }
        }

        async fn open(&self) -> SqliteRollups {
            let file = self.folder.path().join("analytics.db");
            SqliteRollups::open(&file).await.unwrap()
        }

        async fn age_everything_by(&self, age: Duration) {
            let pool = self.pool().await;
            for statement in [
                "UPDATE producer_state SET updated_at = updated_at - ?1",
                "UPDATE dead_letter SET received_at = received_at - ?1",
            ] {
                let aged = sqlx::query(statement).bind(age.as_secs() as i64);
                aged.execute(&pool).await.unwrap();
            }
        }

        async fn damage_counts_of(&self, link: Uuid) {
            let damaged = sqlx::query("UPDATE link_day SET counts = x'09' WHERE link_id = ?1");
            let damaged = damaged.bind(link.as_bytes().as_slice());
            damaged.execute(&self.pool().await).await.unwrap();
        }

        async fn repeat_day_of(&self, link: Uuid, days: i32, clicks: i64) {
            let pool = self.pool().await;
            let insert = "INSERT INTO link_day SELECT link_id, ?2, partition, tenant, clicks, bots,
                visitors, counts, sketch FROM link_day WHERE link_id = ?1 AND day = 0";
            for day in 1..days {
                let repeated = sqlx::query(insert)
                    .bind(link.as_bytes().as_slice())
                    .bind(day);
                repeated.execute(&pool).await.unwrap();
            }
            let update = "UPDATE link_day SET clicks = ?2 WHERE link_id = ?1";
            let updated = sqlx::query(update)
                .bind(link.as_bytes().as_slice())
                .bind(clicks);
            updated.execute(&pool).await.unwrap();
        }

        async fn two_numbers(&self, query: &'static str) -> (i64, i64) {
            sqlx::query_as(query)
                .fetch_one(&self.pool().await)
                .await
                .unwrap()
        }
    }

    impl Database {
        async fn pool(&self) -> SqlitePool {
            let file = self.folder.path().join("analytics.db");
            SqlitePool::connect_with(SqliteConnectOptions::new().filename(file))
                .await
                .unwrap()
        }
    }
}
