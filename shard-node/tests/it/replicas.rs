//! Reads at a standby while the primary cannot be asked.

use std::collections::HashSet;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::postgres::PgConnectOptions;
use tokio::task::spawn_blocking;
use tonic::Code;
use waypost_proto::link::resolve_outcome::Outcome;
use waypost_shard_node::store::postgres::PostgresStore;
use waypost_shard_node::store::{Error, LinkStore as _, Purpose, Session as _};
use waypost_testbed::Postgres;

use crate::cluster::is_found;
use crate::fixture::*;
use crate::node::Node;

const DATABASE: &str = "shard";

/// What a read waits for a primary that was there a moment ago.
const PRIMARY_PATIENCE: Duration = Duration::from_millis(300);

/// What a gateway waits for one answer.
const GATEWAY_PATIENCE: Duration = Duration::from_millis(700);

struct Pair {
    primary: Arc<Postgres>,
    standby: Arc<Postgres>,
}

impl Pair {
    async fn start() -> Self {
        let start = || {
            let primary = Postgres::start().unwrap();
            primary.create_database(DATABASE).unwrap();
            let mut standbys = primary.start_standbys(1).unwrap();
            (primary, standbys.remove(0))
        };
        let (primary, standby) = spawn_blocking(start).await.unwrap();
        Self {
            primary: Arc::new(primary),
            standby: Arc::new(standby),
        }
    }

    /// A node that knows both and has the link `stored`.
    async fn node(&self) -> Node {
        let replicas = [self.standby.url(DATABASE)];
        let node = Node::start_with(&self.primary.url(DATABASE), &replicas, &[]).await;
        node.wait_ready().await;
        node.create(&[alias("stored")]).await.unwrap();
        eventually("the standby can be read", async || {
            node.metric("waypost_shard_replicas_usable") >= 1.0
        })
        .await;
        node
    }
}

async fn to(
    postgres: &Arc<Postgres>,
    run: impl FnOnce(&Postgres) -> waypost_testbed::Result<()> + Send + 'static,
) {
    let postgres = Arc::clone(postgres);
    spawn_blocking(move || run(&postgres).unwrap())
        .await
        .unwrap();
}

#[tokio::test]
async fn a_standby_speaks_for_a_primary_that_is_killed_until_that_is_back() {
    let pair = Pair::start().await;
    let node = pair.node().await;
    let answer = node.look_up(&["stored", "unknown"]).await.unwrap();
    assert!(answer.from_primary && is_found(&answer.outcomes[0]));

    to(&pair.primary, Postgres::kill).await;
    for _ in 0..20 {
        let answer = node.look_up(&["stored", "unknown"]).await.unwrap();
        assert!(!answer.from_primary);
        assert!(is_found(&answer.outcomes[0]));
        let absent = answer.outcomes[1].outcome.as_ref().unwrap();
        assert!(matches!(absent, Outcome::Absent(_)), "{absent:?}");
    }
    let refused = node.create(&[alias("another")]).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);

    to(&pair.primary, Postgres::restart).await;
    eventually("the primary speaks again", async || {
        node.look_up(&["stored"]).await.unwrap().from_primary
    })
    .await;
    eventually("links are created again", async || {
        node.create(&[alias("another")]).await.is_ok()
    })
    .await;
    node.stop().await;
}

#[tokio::test]
async fn a_primary_that_answers_nothing_costs_few_reads_their_patience() {
    let pair = Pair::start().await;
    let node = pair.node().await;
    to(&pair.primary, Postgres::pause).await;
    let mut waited = 0;
    for _ in 0..50 {
        let asked = Instant::now();
        let answer = node.look_up(&["stored"]).await.unwrap();
        assert!(!answer.from_primary && is_found(&answer.outcomes[0]));
        assert!(asked.elapsed() < GATEWAY_PATIENCE, "{:?}", asked.elapsed());
        waited += usize::from(asked.elapsed() >= PRIMARY_PATIENCE);
    }
    // If each of them tried the primary, it would be 7 before its sessions are given up.
    assert!(waited <= 3, "{waited} reads have waited for it");
    to(&pair.primary, Postgres::resume).await;
    eventually("the primary speaks again", async || {
        node.look_up(&["stored"]).await.unwrap().from_primary
    })
    .await;
    node.stop().await;
}

#[tokio::test]
async fn a_standby_that_is_promoted_in_an_outage_is_still_read() {
    let pair = Pair::start().await;
    let node = pair.node().await;
    to(&pair.primary, Postgres::kill).await;
    to(&pair.standby, |standby| {
        standby
            .query("postgres", "SELECT pg_promote()")
            .map(|promoted| assert_eq!(promoted, "t"))
    })
    .await;
    // When a third look begins, the second has ended, which saw it promoted.
    let mut looks = HashSet::new();
    eventually("the node looks at it", async || {
        let standby = Arc::clone(&pair.standby);
        let sql = "SELECT query_start FROM pg_stat_activity
                   WHERE query LIKE '%shard.position%' AND pid <> pg_backend_pid()";
        let look = spawn_blocking(move || standby.query("postgres", sql));
        looks.insert(look.await.unwrap().unwrap());
        looks.len() > 2
    })
    .await;
    let answer = node.look_up(&["stored"]).await.unwrap();
    assert!(!answer.from_primary && is_found(&answer.outcomes[0]));
    node.stop().await;
}

#[tokio::test]
async fn a_server_that_is_no_copy_of_the_primary_is_not_read() {
    let pair = Pair::start().await;
    let stranger = Pair::start().await;
    // Further than the primary, as far as numbers go.
    let sql = "CREATE TABLE t AS SELECT n FROM generate_series(1, 300000) AS n";
    to(&stranger.primary, move |primary| {
        primary.query(DATABASE, sql).map(drop)
    })
    .await;
    let urls = [stranger.standby.url(DATABASE), pair.standby.url(DATABASE)];
    let node = Node::start_with(&pair.primary.url(DATABASE), &urls, &[]).await;
    node.wait_ready().await;
    eventually("the standby can be read", async || {
        node.metric("waypost_shard_replicas_usable") >= 1.0
    })
    .await;
    to(&pair.standby, Postgres::kill).await;
    to(&pair.primary, Postgres::kill).await;
    eventually("nobody is left to ask", async || {
        node.metric("waypost_shard_replicas_usable") < 1.0
    })
    .await;
    let refused = node.look_up(&["stored"]).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    node.stop().await;
}

#[tokio::test]
async fn a_standby_at_the_primarys_address_does_not_speak_as_the_primary() {
    let pair = Pair::start().await;
    let options = PgConnectOptions::from_str(&pair.standby.url(DATABASE)).unwrap();
    let as_primary = PostgresStore::new(options.clone(), shard("s0"), key_ring());
    for purpose in [Purpose::Read, Purpose::Write, Purpose::Relay] {
        let refused = as_primary.connect(purpose).await.unwrap_err();
        assert!(matches!(refused, Error::Unavailable(_)), "{refused}");
    }
    let as_replica = PostgresStore::replica(options, shard("s0"), key_ring());
    let mut session = as_replica.connect(Purpose::Read).await.unwrap();
    assert!(session.position().await.unwrap().is_standby);
}

#[tokio::test]
async fn the_relay_marks_changes_while_no_standby_answers() {
    let pair = Pair::start().await;
    let node = pair.node().await;
    node.edit("stored", "https://example.org/edited")
        .await
        .unwrap();
    let options = PgConnectOptions::from_str(&pair.primary.url(DATABASE)).unwrap();
    let store = PostgresStore::new(options, shard("s0"), key_ring());
    node.stop().await;
    let mut session = store.connect(Purpose::Relay).await.unwrap();
    to(&pair.standby, Postgres::pause).await;
    // Two, since the first leaves something to be marked again.
    for _ in 0..2 {
        let marked = async {
            session.reopen(10).await.unwrap();
            let due = session.oldest(10).await.unwrap();
            let places: Vec<_> = due.iter().map(|change| change.place).collect();
            session.acknowledge(&places).await.unwrap();
            places.len()
        };
        let marked = tokio::time::timeout(Duration::from_secs(5), marked).await;
        assert_eq!(marked, Ok(1), "it waited for a standby");
    }
    to(&pair.standby, Postgres::resume).await;
}
