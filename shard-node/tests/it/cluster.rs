//! Nodes of one shard on Postgres and Redis Cluster, and what happens to them.

use std::time::Duration;

use tokio::task::{JoinSet, spawn_blocking};
use tonic::Code;
use waypost_domain::{Link, LinkKey};
use waypost_proto::cache;
use waypost_proto::link::{create_outcome, resolve_outcome};
use waypost_testbed::{Postgres, RedisCluster};

use crate::fixture::*;
use crate::node::{Node, Watch};
use crate::postgres::open;

/// Looks into Redis.
struct Reader(waypost_runtime::redis::Redis);

impl Reader {
    fn of(cluster: &RedisCluster) -> Self {
        use waypost_runtime::redis::{Access, Redis, Times};
        let times = Times {
            response: Duration::from_secs(2),
            overall: Duration::from_secs(5),
        };
        let redis = Redis::connect(&cluster.addresses(), &Access::default(), times);
        Self(redis.unwrap())
    }

    async fn link(&self, name: &LinkKey) -> Option<Link> {
        let value = self.0.run(&redis::Cmd::get(cache::key(1, name))).await;
        let value: Option<Vec<u8>> = value.ok()?;
        match cache::decode(name, &value?) {
            Ok(cache::Entry::Link(link)) => Some(*link),
            _ => None,
        }
    }
}

pub(crate) fn is_found(outcome: &waypost_proto::link::ResolveOutcome) -> bool {
    matches!(outcome.outcome, Some(resolve_outcome::Outcome::Found(_)))
}

/// The stream of whichever node leads, and its index.
async fn leader(nodes: &[&Node]) -> (usize, Watch) {
    let mut found = None;
    eventually("a node relays", async || {
        for (at, node) in nodes.iter().enumerate() {
            if let Some(watch) = node.watch().await {
                found = Some((at, watch));
            }
        }
        found.is_some()
    })
    .await;
    found.unwrap()
}

#[tokio::test]
async fn calls_without_the_token_are_refused() {
    let database = open().await;
    let node = Node::ready(&database.url, &[]).await;
    let request = waypost_proto::link::ResolveBatchRequest { keys: Vec::new() };
    let status = node.stranger().resolve_batch(request).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    assert!(node.resolve(&["anything"]).await.is_ok());
    node.stop().await;
}

#[tokio::test]
async fn exactly_one_node_relays_and_another_takes_over_when_it_stops() {
    let database = open().await;
    let nodes = [
        Node::ready(&database.url, &[]).await,
        Node::ready(&database.url, &[]).await,
    ];
    let (at, mut watch) = leader(&[&nodes[0], &nodes[1]]).await;
    let leads = |node: &Node| node.metric("waypost_shard_leader");
    assert_eq!(leads(&nodes[0]) + leads(&nodes[1]), 1.0);
    assert!(nodes[1 - at].watch().await.is_none());

    // A change by the one that does not lead is told by the one that does.
    let other = &nodes[1 - at];
    other.create(&[alias("relayed")]).await.unwrap();
    other
        .edit("relayed", "https://example.org/1")
        .await
        .unwrap();
    assert_eq!(&watch.change().await.long_url[..], b"https://example.org/1");

    let mut nodes = Vec::from(nodes);
    let first = nodes.remove(at);
    let second = nodes.remove(0);
    first.stop().await;
    while watch.next().await.is_some() {}
    let (_, mut watch) = leader(&[&second]).await;
    second
        .edit("relayed", "https://example.org/2")
        .await
        .unwrap();
    assert_eq!(&watch.change().await.long_url[..], b"https://example.org/2");
    second.stop().await;
}

#[tokio::test]
async fn a_leader_whose_connection_is_cut_ends_its_streams_and_is_replaced() {
    let database = open().await;
    let nodes = [
        Node::ready(&database.url, &[]).await,
        Node::ready(&database.url, &[]).await,
    ];
    let all = [&nodes[0], &nodes[1]];
    let (_, mut watch) = leader(&all).await;
    database
        .execute(
            "SELECT pg_terminate_backend(pid) FROM pg_locks
             WHERE locktype = 'advisory' AND classid = 22384 AND objid = 2 AND granted
               AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
        )
        .await;
    while watch.next().await.is_some() {}
    let (at, mut watch) = leader(&all).await;
    assert_eq!(
        all.iter()
            .map(|node| node.metric("waypost_shard_leader"))
            .sum::<f64>(),
        1.0
    );
    all[at].create(&[alias("after-cut")]).await.unwrap();
    all[at]
        .edit("after-cut", "https://example.org/")
        .await
        .unwrap();
    assert_eq!(watch.change().await.slug, "after-cut");
}

#[tokio::test]
async fn a_change_that_commits_late_is_told_after_those_that_overtook_it() {
    let database = open().await;
    let node = Node::ready(&database.url, &[]).await;
    node.create(&[alias("late-link"), alias("soon-link")])
        .await
        .unwrap();
    let (_, mut watch) = leader(&[&node]).await;
    let mut slow = database.connection().await;
    let mut tx = sqlx::Connection::begin(&mut slow).await.unwrap();
    sqlx::query("INSERT INTO outbox (domain, slug) VALUES (0, 'late-link')")
        .execute(&mut *tx)
        .await
        .unwrap();
    node.edit("soon-link", "https://example.org/")
        .await
        .unwrap();
    assert_eq!(watch.change().await.slug, "soon-link");
    // Beats show that the relay has looked again in between.
    watch.heartbeat().await;
    tx.commit().await.unwrap();
    assert_eq!(watch.change().await.slug, "late-link");
    node.stop().await;
}

#[tokio::test]
async fn a_node_starts_without_its_database_and_survives_its_restart() {
    let postgres = spawn_blocking(|| Postgres::start().unwrap()).await.unwrap();
    postgres.create_database("shard").unwrap();
    let url = postgres.url("shard");
    let postgres = spawn_blocking(move || postgres.stop().map(|()| postgres).unwrap());
    let postgres = postgres.await.unwrap();
    let node = Node::start(&url, &[]).await;
    eventually("the node answers that it cannot", async || {
        let status = node.resolve(&["anything"]).await.unwrap_err();
        status.code() == Code::Unavailable && status.message().contains("database")
    })
    .await;
    assert_eq!(node.process.readiness.missing(), ["database reached"]);

    let postgres = spawn_blocking(move || postgres.restart().map(|()| postgres).unwrap());
    let postgres = postgres.await.unwrap();
    node.wait_ready().await;
    node.create(&[alias("lasting")]).await.unwrap();
    assert!(is_found(&node.resolve(&["lasting"]).await.unwrap()[0]));

    let postgres = spawn_blocking(move || postgres.restart().map(|()| postgres).unwrap());
    let _postgres = postgres.await.unwrap();
    // All sessions were lost while idle; neither reads nor creates show it.
    assert!(is_found(&node.resolve(&["lasting"]).await.unwrap()[0]));
    let outcomes = node.create(&[alias("another")]).await.unwrap();
    assert!(matches!(
        outcomes[0].outcome,
        Some(create_outcome::Outcome::Created(_))
    ));
    eventually("edits work again", async || {
        node.edit("lasting", "https://example.org/").await.is_ok()
    })
    .await;
    leader(&[&node]).await;
    node.stop().await;
}

#[tokio::test]
async fn requests_that_wait_share_a_statement_and_too_many_are_refused() {
    let database = open().await;
    let node = Node::ready(&database.url, &[]).await;
    node.create(&[minted("co000000")]).await.unwrap();
    let (before, _) = node.batches("resolve");

    // All readers are held up; what comes meanwhile waits together.
    let mut holder = database.connection().await;
    let mut lock = sqlx::Connection::begin(&mut holder).await.unwrap();
    sqlx::query("LOCK TABLE links IN ACCESS EXCLUSIVE MODE")
        .execute(&mut *lock)
        .await
        .unwrap();
    let mut waiting = JoinSet::new();
    let ask = |count: usize| {
        let mut client = node.client.clone();
        let keys = vec![(&key("co000000")).into(); count];
        async move {
            let request = waypost_proto::link::ResolveBatchRequest { keys };
            client.resolve_batch(request).await
        }
    };
    for _ in 0..100 {
        waiting.spawn(ask(1));
    }
    eventually("all of them wait", async || {
        node.metric("waypost_shard_queue_items") >= 100.0
    })
    .await;
    lock.rollback().await.unwrap();
    while let Some(outcome) = waiting.join_next().await {
        assert!(is_found(
            &outcome.unwrap().unwrap().into_inner().outcomes[0]
        ));
    }
    let (after, items) = node.batches("resolve");
    assert!(items >= 100.0);
    assert!(after - before <= 20, "{} statements", after - before);

    let mut lock = sqlx::Connection::begin(&mut holder).await.unwrap();
    sqlx::query("LOCK TABLE links IN ACCESS EXCLUSIVE MODE")
        .execute(&mut *lock)
        .await
        .unwrap();
    for _ in 0..16 {
        waiting.spawn(ask(1_024));
    }
    eventually("the queue is full", async || {
        node.metric("waypost_shard_queue_items") >= 16_384.0
    })
    .await;
    let status = ask(1).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    lock.rollback().await.unwrap();
    node.stop().await;
}

#[tokio::test]
async fn creates_that_wait_share_a_commit() {
    let database = open().await;
    let node = Node::ready(&database.url, &[]).await;
    let mut holder = database.connection().await;
    let mut lock = sqlx::Connection::begin(&mut holder).await.unwrap();
    // As whoever moves a prefix does.
    sqlx::query("SELECT pg_advisory_xact_lock(22384, 1)")
        .execute(&mut *lock)
        .await
        .unwrap();
    let mut waiting = JoinSet::new();
    for at in 0..60 {
        let mut client = node.client.clone();
        let request = waypost_proto::link::CreateBatchRequest {
            links: vec![(&minted(&format!("gc0000{at:02}"))).into()],
        };
        waiting.spawn(async move { client.create_batch(request).await });
    }
    eventually("all of them wait", async || {
        node.metric("waypost_shard_queue_items") >= 60.0
    })
    .await;
    lock.rollback().await.unwrap();
    while let Some(outcome) = waiting.join_next().await {
        let outcomes = outcome.unwrap().unwrap().into_inner().outcomes;
        assert!(matches!(
            outcomes[0].outcome,
            Some(create_outcome::Outcome::Created(_))
        ));
    }
    let (statements, items) = node.batches("create");
    assert_eq!(items, 60.0);
    assert!(statements <= 12, "{statements} statements");
    node.stop().await;
}

#[tokio::test]
async fn changes_reach_redis_at_once_or_when_it_is_back_and_streams_do_not_wait() {
    let (database, redis) = tokio::join!(open(), spawn_blocking(|| RedisCluster::start().unwrap()));
    let redis = redis.unwrap();
    let node = Node::ready(&database.url, &redis.addresses()).await;
    node.create(&[alias("cached-link")]).await.unwrap();
    let (_, mut watch) = leader(&[&node]).await;
    let outbox = "SELECT count(*) FROM outbox WHERE applied_at IS NULL";
    node.edit("cached-link", "https://example.org/1")
        .await
        .unwrap();
    eventually("redis acknowledged", async || {
        database.count(outbox).await == 0
    })
    .await;
    let reader = Reader::of(&redis);
    let name = key("cached-link");
    let read = async || reader.link(&name).await;
    let cached = read().await.unwrap();
    assert_eq!(cached.long_url, url("https://example.org/1"));
    assert!(key_ring().verify(&cached));

    watch.change().await;
    let redis = spawn_blocking(move || redis.pause().map(|()| redis).unwrap());
    let redis = redis.await.unwrap();
    node.edit("cached-link", "https://example.org/2")
        .await
        .unwrap();
    assert_eq!(&watch.change().await.long_url[..], b"https://example.org/2");
    while watch.heartbeat().await.oldest_unapplied_ms < 1_000 {}
    assert_eq!(database.count(outbox).await, 1);

    let redis = spawn_blocking(move || redis.resume().map(|()| redis).unwrap());
    let _redis = redis.await.unwrap();
    while watch.heartbeat().await.oldest_unapplied_ms > 0 {}
    eventually("redis has the second edit", async || {
        read()
            .await
            .is_some_and(|link| link.long_url == url("https://example.org/2"))
    })
    .await;
    node.stop().await;
}

#[tokio::test]
async fn changes_that_a_promoted_replica_lacks_are_told_and_applied_once_more() {
    let (database, redis) = tokio::join!(open(), spawn_blocking(|| RedisCluster::start().unwrap()));
    let redis = redis.unwrap();
    let node = Node::ready(&database.url, &redis.addresses()).await;
    node.create(&[alias("lost-edit")]).await.unwrap();
    let (_, mut watch) = leader(&[&node]).await;
    let reader = Reader::of(&redis);
    let name = key("lost-edit");
    let is_cached = async |to: &str| {
        let link = reader.link(&name).await;
        link.is_some_and(|link| link.long_url == url(to))
    };
    node.edit("lost-edit", "https://example.org/1")
        .await
        .unwrap();
    eventually("redis has the first edit", async || {
        is_cached("https://example.org/1").await
    })
    .await;
    let [master, replica] = redis.home_of(&cache::key(1, &name)).unwrap();
    replica.lag_behind(master).unwrap();
    node.edit("lost-edit", "https://example.org/2")
        .await
        .unwrap();
    eventually("the master has the second edit", async || {
        is_cached("https://example.org/2").await
    })
    .await;
    for edit in ["1", "2"] {
        let told = watch.change().await.long_url;
        assert_eq!(&told[..], format!("https://example.org/{edit}").as_bytes());
    }
    while watch.heartbeat().await.oldest_unapplied_ms > 0 {}

    master.kill().unwrap();
    // A gateway that has read the old value from the replica must hear of it.
    let told = watch.change().await.long_url;
    assert_eq!(&told[..], b"https://example.org/2", "told once more");
    assert!(replica.is_master());
    eventually("the promoted replica has the second edit", async || {
        is_cached("https://example.org/2").await
    })
    .await;
    while watch.heartbeat().await.oldest_unapplied_ms > 0 {}
    assert!(node.metric("waypost_shard_changes_reopened_total") >= 2.0);
    node.stop().await;
}
