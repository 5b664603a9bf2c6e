//! What only the Postgres store is asked, and the conformance suite.

use std::str::FromStr as _;

use sqlx::ConnectOptions as _;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use waypost_shard_node::store::postgres::PostgresStore;
use waypost_shard_node::store::{Created, LinkStore as _, Session as _};
use waypost_testbed::Postgres;

use crate::fixture::*;

pub(crate) struct Shard {
    pub(crate) url: String,
    pub(crate) store: PostgresStore,
}

pub(crate) async fn open() -> Shard {
    let url = tokio::task::spawn_blocking(|| Postgres::shared().unwrap().fresh_database().unwrap());
    let database = Shard::at(url.await.unwrap());
    database.store.prepare(&map()).await.unwrap();
    database
}

impl Shard {
    pub(crate) fn at(url: String) -> Self {
        let options = PgConnectOptions::from_str(&url).unwrap();
        let store = PostgresStore::new(options, shard("s0"), key_ring());
        Self { url, store }
    }

    pub(crate) async fn connection(&self) -> PgConnection {
        let options = PgConnectOptions::from_str(&self.url).unwrap();
        options.connect().await.unwrap()
    }
}

impl Database for Shard {
    type Store = PostgresStore;

    fn store(&self) -> &PostgresStore {
        &self.store
    }

    async fn execute(&self, sql: &'static str) {
        let mut connection = self.connection().await;
        sqlx::query(sql).execute(&mut connection).await.unwrap();
    }

    async fn count(&self, sql: &'static str) -> i64 {
        let mut connection = self.connection().await;
        let count = sqlx::query_scalar(sql).fetch_one(&mut connection);
        count.await.unwrap()
    }
}

crate::conformance::conformance!(open());

#[tokio::test]
async fn one_bad_item_of_a_batch_fails_alone() {
    let database = open().await;
    let mut session = database.session().await;
    let mut batch: Vec<_> = (0..33)
        .map(|at| minted(&format!("ba0000{at:02}")))
        .collect();
    // Postgres has no texts with a zero byte.
    batch[20].title = Some("zero\0byte".to_owned());
    let outcomes = session.create_batch(&batch).await.unwrap();
    for (at, outcome) in outcomes.iter().enumerate() {
        match at {
            20 => assert_eq!(*outcome, Created::Refused),
            _ => assert_eq!(stored(outcome).key, batch[at].key),
        }
    }
}

#[tokio::test]
async fn a_typical_row_with_its_index_takes_at_most_350_bytes() {
    let database = open().await;
    let mut session = database.session().await;
    for part in 0..10 {
        let batch: Vec<_> = (0..1_000)
            .map(|at| {
                let mut new = minted(&format!("{part}z{:06}", at * 7_919 % 1_000));
                let path = "a".repeat(40);
                new.long_url = url(&format!("https://www.example.com/{path}"));
                new
            })
            .collect();
        session.create_batch(&batch).await.unwrap();
    }
    let size = database
        .count("SELECT pg_total_relation_size('links')")
        .await;
    assert!(size / 10_000 <= 350, "{} bytes a row", size / 10_000);
}

#[tokio::test]
async fn look_ups_go_by_the_indices_even_without_statistics() {
    let database = open().await;
    let mut session = database.session().await;
    let batch: Vec<_> = (0..1_000).map(|at| minted(&format!("pl{at:06}"))).collect();
    session.create_batch(&batch).await.unwrap();
    let scans = "SELECT coalesce(sum(seq_scan), 0)::bigint FROM pg_stat_user_tables
                 WHERE relname IN ('links', 'prefix_owner')";
    let by_index = "SELECT coalesce(sum(idx_scan), 0)::bigint FROM pg_stat_user_tables
                    WHERE relname IN ('links', 'prefix_owner')";
    // The seed and its ANALYZE read the table once or twice; these must not.
    let mut reader = database.session().await;
    let before = database.count(scans).await;
    for _ in 0..20 {
        reader.resolve_batch(&[key("pl000001")]).await.unwrap();
    }
    drop((reader, session));
    // A session reports what it read when it ends.
    eventually("the look-ups are counted", async || {
        database.count(by_index).await >= 40
    })
    .await;
    assert_eq!(database.count(scans).await, before);
}
