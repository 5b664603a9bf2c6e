//! What Redis is told by whoever connects.

use std::fs;
use std::path::Path;
use std::time::Duration;

use redis::Cmd;
use tokio::task::spawn_blocking;
use waypost_runtime::metrics::Registry;
use waypost_runtime::redis::{Access, Redis, RedisOptions, Times};
use waypost_runtime::watched::Watcher;
use waypost_testbed::RedisCluster;

use crate::fixture::eventually;

const TIMES: Times = Times {
    response: Duration::from_secs(2),
    overall: Duration::from_secs(5),
};

/// As whom Redis knows who comes with these secrets.
async fn known_as(cluster: &RedisCluster, secrets: &Path) -> Option<String> {
    let options = RedisOptions {
        redis_user: Some("waypost".to_owned()),
        ..RedisOptions::default()
    };
    let watcher = Watcher::register(&Registry::new()).unwrap();
    let access = options.open(secrets, &watcher).unwrap();
    let redis = Redis::connect(&cluster.addresses(), &access, TIMES).unwrap();
    let mut who = Cmd::new();
    who.arg("ACL").arg("WHOAMI");
    redis.run(&who).await.ok()
}

#[tokio::test]
async fn redis_is_told_the_user_and_the_password_among_the_secrets() {
    let cluster = spawn_blocking(|| {
        let cluster = RedisCluster::start().unwrap();
        for node in cluster.nodes() {
            let user = "ACL SETUSER waypost on >of-redis ~* +@all";
            node.query(user).unwrap();
        }
        cluster
    });
    let cluster = cluster.await.unwrap();
    let secrets = tempfile::tempdir().unwrap();
    let file = secrets.path().join("redis-password");
    fs::write(&file, "of-redis\n").unwrap();
    eventually("redis knows the user", async || {
        known_as(&cluster, secrets.path()).await.as_deref() == Some("waypost")
    })
    .await;
    fs::write(&file, "of-another").unwrap();
    assert_eq!(known_as(&cluster, secrets.path()).await, None);
}

/// Commands that are always under way while the connections are cut.
const UNDER_WAY: usize = 64;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_answers_again_however_often_all_connections_are_cut() {
    let cluster = spawn_blocking(|| RedisCluster::start().unwrap());
    let cluster = cluster.await.unwrap();
    let times = Times {
        response: Duration::from_millis(200),
        overall: Duration::from_millis(500),
    };
    let redis = Redis::connect(&cluster.addresses(), &Access::default(), times).unwrap();
    let asked: Vec<_> = (0..UNDER_WAY)
        .map(|number| {
            let redis = redis.clone();
            tokio::spawn(async move {
                let mut get = Cmd::new();
                get.arg("GET").arg(format!("key-{number}"));
                loop {
                    // What fails while there is no connection is none of this test's.
                    let _ = redis.run::<Option<String>>(&get).await;
                }
            })
        })
        .collect();
    let mut cluster = cluster;
    for round in 0..20 {
        cluster = spawn_blocking(move || {
            for node in cluster.nodes() {
                node.query("CLIENT KILL TYPE normal SKIPME yes").unwrap();
            }
            cluster
        })
        .await
        .unwrap();
        eventually(&format!("redis answers after cut {round}"), async || {
            let mut get = Cmd::new();
            get.arg("GET").arg(format!("after-{round}"));
            redis.run::<Option<String>>(&get).await.is_ok()
        })
        .await;
    }
    for task in asked {
        task.abort();
    }
}

#[test]
fn options_of_redis_that_need_others_name_what_is_missing() {
    let secrets = tempfile::tempdir().unwrap();
    let missing = |options: RedisOptions| {
        let watcher = Watcher::register(&Registry::new()).unwrap();
        options.open(secrets.path(), &watcher).unwrap_err().option
    };
    let file = || Some("/nowhere".into());
    let user = RedisOptions {
        redis_user: Some("waypost".to_owned()),
        ..RedisOptions::default()
    };
    assert_eq!(missing(user), "--redis-user");
    let only_own = RedisOptions {
        redis_tls_cert: file(),
        redis_tls_key: file(),
        ..RedisOptions::default()
    };
    assert_eq!(missing(only_own), "--redis-tls-ca");
    let no_key = RedisOptions {
        redis_tls_ca: file(),
        redis_tls_cert: file(),
        ..RedisOptions::default()
    };
    assert_eq!(missing(no_key), "--redis-tls-key");
}
