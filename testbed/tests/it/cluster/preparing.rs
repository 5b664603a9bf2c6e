//! Databases that are brought up to date before any process serves.

use std::process::{Command, Output};

use waypost_testbed::service::{Kind, programs_folder};
use waypost_testbed::{Cluster, Postgres};

use super::shared;

/// Runs a program with the options of a running one of its kind, against this database.
fn migrate(cluster: &Cluster, kind: Kind, url: &str) -> Output {
    let running = match kind {
        Kind::ShardNode => &cluster.shards[0].nodes[0],
        Kind::Keygen => &cluster.keygens[0],
        _ => &cluster.consumers[0],
    };
    let environment = std::fs::read(format!("/proc/{}/environ", running.pid())).unwrap();
    let environment = String::from_utf8(environment).unwrap();
    let settings = environment
        .split('\0')
        .filter_map(|setting| setting.split_once('='))
        .filter(|(name, _)| name.starts_with("WAYPOST_"));
    Command::new(programs_folder().unwrap().join(kind.program()))
        .env_clear()
        .envs(settings)
        .env("WAYPOST_LISTEN", "127.0.0.1:0")
        .env("WAYPOST_ADMIN_LISTEN", "127.0.0.1:0")
        .env("WAYPOST_POSTGRES_URL", url)
        .env("WAYPOST_MIGRATE_ONLY", "true")
        .output()
        .unwrap()
}

#[test]
fn a_program_that_only_migrates_leaves_the_schema_and_ends_also_the_second_time() {
    let postgres = Postgres::start().unwrap();
    for (kind, table) in [
        (Kind::ShardNode, "prefix_owner"),
        (Kind::Keygen, "key_counter"),
        (Kind::AnalyticsConsumer, "link_day"),
    ] {
        let url = postgres.fresh_database().unwrap();
        for _ in 0..2 {
            let ended = migrate(shared(), kind, &url);
            assert!(ended.status.success(), "{kind:?}: {ended:?}");
        }
        let database = url.rsplit('/').next().unwrap();
        let count =
            format!("SELECT count(*) FROM information_schema.tables WHERE table_name = '{table}'");
        assert_eq!(postgres.query(database, &count).unwrap(), "1", "{kind:?}");
    }
}
